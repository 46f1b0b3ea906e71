"""Runs a program as a container does: container.py ROOT STATE USER PROGRAM ARGUMENT...

ROOT becomes its whole file system and cannot be written, but for STATE at $STATE_DIRECTORY. It has the user's number and
no rights, cannot gain any, and the kernel makes no memory of it executable that was written. To be started as root in a
mount namespace of its own.
"""

import ctypes
import os
import subprocess
import sys

PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, PR_SET_MDWE = 24, 38, 65
EINVAL = 22

libc = ctypes.CDLL(None, use_errno=True)


def mount(*arguments):
    subprocess.run(["mount", *arguments], check=True)


def prctl(option, value):
    if libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option}, {value})")


root, state, user, *command = sys.argv[1:]
mount("--bind", root, root)
mount("-o", "remount,ro,bind", root)
mount("--bind", state, root + os.environ["STATE_DIRECTORY"])
mount("-t", "proc", "proc", root + "/proc")
os.chroot(root)
os.chdir("/etc/lucid-proxy")
for capability in range(64):
    try:
        prctl(PR_CAPBSET_DROP, capability)
    except OSError as error:
        if error.errno != EINVAL:
            raise
        break  # the kernel knows no more of them
os.setgroups([])
os.setgid(int(user))
os.setuid(int(user))
prctl(PR_SET_NO_NEW_PRIVS, 1)
try:
    prctl(PR_SET_MDWE, 1)
except OSError as error:
    if error.errno != EINVAL:
        raise  # older than Linux 6.3
os.execv(command[0], command)
