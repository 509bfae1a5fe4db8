"""A few steps between fork and exec, run as a script: `launch.py PARENT DEATH_SIGNAL UID GID FOLDER -- COMMAND...`.

Enters FOLDER, becomes UID and GID ("-" keeps the caller's), asks the kernel to send DEATH_SIGNAL when PARENT dies, and
becomes COMMAND. Standard library only, and fast to import: every child of the supervisor passes through here.
"""

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Become the command. Exits with status 127 and one line when that is impossible."""
    parent, death_signal, uid, gid, folder, _separator, *command = sys.argv[1:]
    try:
        # As root the folder may lie below closed parents: enter it before becoming somebody else.
        os.chdir(folder)
        if uid != "-":
            os.setgroups([])
            os.setgid(int(gid))
            os.setuid(int(uid))
        # A change of uid clears the death signal, so it comes after.
        if sys.platform == "linux":
            ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0)
        if os.getppid() != int(parent):
            # The parent died before the kernel knew of our wish.
            sys.exit(0)
        os.execv(command[0], command)  # noqa: S606 - no shell is the point
    except OSError as error:
        sys.exit(f"cannot start {command[0]} in {folder}: {error.strerror or error}")


if __name__ == "__main__":
    main()
