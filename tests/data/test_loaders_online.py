"""Readers for what can only be had live, on small files and a local stand-in of the service."""

from __future__ import annotations

import http.server
import sys
import threading

import h5py
import numpy as np
import pytest
import scipy.sparse as sp
from mudata import MuData

from scprimer.data import DownloadError, FormatError, UnknownData
from scprimer.data.loaders import online

PAGES = {
    "/list/pathway/hsa": "hsa00010\tGlycolysis - Homo sapiens (human)\nhsa00020\tCitrate cycle - Homo sapiens (human)\n",
    "/link/hsa/pathway": "path:hsa00010\thsa:10327\npath:hsa00010\thsa:124\npath:hsa00020\thsa:1431\n",
    "/list/pathway/dme": "dme00010\tGlycolysis - fly\n",
    "/link/dme/pathway": "path:dme00010\tdme:Dmel_CG1\n",
    "/list/pathway/odd": "no tabs here\n",
}


@pytest.fixture
def service(monkeypatch):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            if self.path not in PAGES:
                return self.send_error(400)
            body = PAGES[self.path].encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{running.server_port}"
    running.shutdown()
    running.server_close()
    thread.join()


def test_kegg(service):
    assert online.kegg(service=service) == {"Glycolysis": [10327, 124], "Citrate cycle": [1431]}


def test_kegg_refuses_what_it_does_not_know(service):
    with pytest.raises(FormatError, match="Entrez ids"):
        online.kegg("dme", service=service)
    with pytest.raises(FormatError, match="another form"):
        online.kegg("odd", service=service)
    with pytest.raises(DownloadError, match="answered 400"):
        online.kegg("xxx", service=service)
    with pytest.raises(DownloadError, match="cannot be reached"):
        online.kegg(service="http://127.0.0.1:9")


def test_census_says_what_it_needs(monkeypatch):
    monkeypatch.setitem(sys.modules, "cellxgene_census", None)  # as if not installed
    with pytest.raises(UnknownData, match="pip install cellxgene-census"):
        online.census("Homo sapiens", "tissue == 'lung'")


def write_10x(path, table, kinds):
    x = sp.csc_matrix(np.asarray(table))
    with h5py.File(path, "w") as held:
        group = held.create_group("matrix")
        for key, values in {"data": x.data, "indices": x.indices, "indptr": x.indptr, "shape": x.shape}.items():
            group[key] = values
        group["barcodes"] = np.array([f"c{i}-1" for i in range(x.shape[1])], dtype="S")
        names = {
            "id": [f"ID{i}" for i in range(x.shape[0])],
            "name": [f"N{i}" for i in range(x.shape[0])],
            "feature_type": kinds,
        }
        for key, values in names.items():
            group[f"features/{key}"] = np.array(values, dtype="S")


def test_10x_h5(tmp_path):
    table = [[0, 2, 1], [3, 0, 0], [0, 0, 5]]
    write_10x(tmp_path / "a.h5", table, ["Gene Expression"] * 3)
    adata = online.tenx_h5(tmp_path / "a.h5")
    assert (adata.X.toarray() == np.array(table).T).all()
    assert list(adata.var_names) == ["N0", "N1", "N2"] and adata.var["ensembl"].tolist() == ["ID0", "ID1", "ID2"]
    write_10x(tmp_path / "b.h5", table, ["Gene Expression", "Peaks", "Gene Expression"])
    paired = online.tenx_h5(tmp_path / "b.h5")
    assert isinstance(paired, MuData) and set(paired.mod) == {"rna", "atac"}
    assert paired["rna"].X.toarray().tolist() == [[0, 0], [2, 0], [1, 5]]


def test_another_h5_is_refused(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as held:
        held["X"] = [1]
    with pytest.raises(FormatError, match="no feature-barcode matrix"):
        online.tenx_h5(tmp_path / "a.h5")
    (tmp_path / "b.h5").write_text("no")
    with pytest.raises(FormatError, match="no feature-barcode matrix"):
        online.tenx_h5(tmp_path / "b.h5")
