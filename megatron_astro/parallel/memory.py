"""Keep freed memory in the process instead of giving it back to the system between training steps.

glibc returns every large activation to the kernel as soon as it is freed, and takes it back as zeroed pages at the next step; on a CPU
the page faults can cost more than the arithmetic. `mallopt` turns that off from inside the process.
"""

import ctypes
import logging
import platform

logger = logging.getLogger(__name__)

# Parameter numbers of mallopt(3), glibc's malloc.h.
M_TRIM_THRESHOLD = -1
M_TOP_PAD = -2
M_MMAP_MAX = -4

LARGEST_INT = 2**31 - 1
TOP_PAD_BYTES = 64 * 1024 * 1024


def keep_freed_memory() -> bool:
    """Tell glibc's allocator to keep what is freed; False (and nothing changed) where the C library is another one."""
    if platform.libc_ver()[0] != "glibc":
        logger.info("memory: the C library is not glibc, its allocator is left as it is")
        return False
    mallopt = ctypes.CDLL(None).mallopt
    settings = ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, LARGEST_INT), (M_TOP_PAD, TOP_PAD_BYTES))
    return all(mallopt(parameter, value) == 1 for parameter, value in settings)
