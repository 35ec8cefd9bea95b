"""nbgrader as in the book's image, where every user's account is `jovyan`: it then takes the user's name from the hub."""

import os
import pwd
import sys

account = pwd.getpwuid(os.getuid())
pwd.getpwuid = lambda uid: pwd.struct_passwd(("jovyan", *account[1:]))

from nbgrader.apps.nbgraderapp import main  # noqa: E402  (it must find the account above)

sys.exit(main())
