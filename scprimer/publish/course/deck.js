// Turns the slides: one at a time, scaled to the window, letters made smaller where a slide would overflow.
(() => {
  const slides = [...document.querySelectorAll("section")];
  const said = document.querySelector("nav output");
  let now = Math.max(0, slides.findIndex((s) => `#${s.id}` === location.hash));

  // Before the slides are hidden, each is measured where it stands: what is too wide shrinks alone, what is too tall as a whole.
  for (const slide of slides) {
    const fit = slide.querySelector(".fit"), body = slide.querySelector(".body");
    for (const wide of body.querySelectorAll("pre, table, math[display=block]")) {
      const size = parseFloat(getComputedStyle(wide).fontSize);
      if (wide.scrollWidth > body.clientWidth) wide.style.fontSize = `${Math.max(0.6, body.clientWidth / wide.scrollWidth) * size}px`;
    }
    for (let scale = 1; scale > 0.5; scale -= 0.05) {
      slide.style.setProperty("--scale", scale.toFixed(2));
      if (body.scrollHeight <= body.clientHeight + 1 && fit.scrollHeight <= fit.clientHeight + 1) break;
    }
  }
  document.documentElement.classList.add("turning");

  function size() {
    const scale = Math.min(innerWidth / 1280, innerHeight / 720);
    for (const slide of slides) slide.style.transform = `scale(${scale}) translate(-50%, ${Math.max(0, innerHeight / scale - 720) / 2}px)`;
  }
  function show(next) {
    now = Math.min(slides.length - 1, Math.max(0, next));
    slides.forEach((s, i) => s.classList.toggle("now", i === now));
    said.textContent = `${now + 1} of ${slides.length}`;
    history.replaceState(null, "", `#${slides[now].id}`);
  }
  const keys = {
    ArrowRight: () => show(now + 1), ArrowDown: () => show(now + 1), PageDown: () => show(now + 1),
    ArrowLeft: () => show(now - 1), ArrowUp: () => show(now - 1), PageUp: () => show(now - 1),
    Home: () => show(0), End: () => show(slides.length - 1),
    n: () => { const notes = slides[now].querySelector("details"); if (notes) notes.open = !notes.open; },
    f: () => (document.fullscreenElement ? document.exitFullscreen() : document.documentElement.requestFullscreen()),
  };
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const inside = event.target.closest?.("button, summary, a");
    const act = event.key === " " && !inside ? () => show(now + (event.shiftKey ? -1 : 1)) : keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (act) { event.preventDefault(); act(); }
  });
  for (const button of document.querySelectorAll("nav button")) button.addEventListener("click", () => show(now + Number(button.dataset.go)));
  let from = null;
  addEventListener("touchstart", (e) => { from = e.touches[0].clientX; }, { passive: true });
  addEventListener("touchend", (e) => { const by = e.changedTouches[0].clientX - from; if (Math.abs(by) > 60) show(now + (by < 0 ? 1 : -1)); });
  addEventListener("hashchange", () => { const i = slides.findIndex((s) => `#${s.id}` === location.hash); if (i >= 0) show(i); });
  addEventListener("resize", size);
  size();
  show(now);
})();
