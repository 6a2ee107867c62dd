# cython: language_level=3, boundscheck=False, wraparound=False
"""Numbers of a file that several processes have in memory, for who has no time for a call.

A page of a mapped file that can't be had (the file was cut, a disk that copies on write is full)
kills a process with SIGBUS. Here it does not: the page is replaced by one of the process's own, and
the mapping is lost, which whoever uses it is told. A fault anywhere else goes where it went before.
"""

from libc.errno cimport errno
from libc.stdint cimport int64_t

import os

cdef extern from *:
    """
    #include <errno.h>
    #include <signal.h>
    #include <stddef.h>
    #include <stdint.h>
    #include <sys/mman.h>
    #include <unistd.h>

    #define MOST 256
    static struct { volatile uintptr_t from, until; volatile int lost; } mapped[MOST];
    static struct sigaction before;
    static uintptr_t page_bytes;

    static void at_fault(int number, siginfo_t *told, void *context) {
        uintptr_t at = (uintptr_t)told->si_addr;
        for (int n = 0; n < MOST; n++) {
            if (mapped[n].from <= at && at < mapped[n].until) {
                void *page = (void *)(at & ~(page_bytes - 1));
                mapped[n].lost = 1;
                if (mmap(page, page_bytes, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != MAP_FAILED)
                    return;
            }
        }
        if (before.sa_flags & SA_SIGINFO)
            before.sa_sigaction(number, told, context);
        else if (before.sa_handler != SIG_DFL && before.sa_handler != SIG_IGN)
            before.sa_handler(number);
        else
            sigaction(SIGBUS, &before, NULL);  /* It comes again at once, and kills. */
    }

    static int watch_faults(void) {
        struct sigaction now;
        if (sigaction(SIGBUS, NULL, &now) != 0) return -1;
        if ((now.sa_flags & SA_SIGINFO) && now.sa_sigaction == at_fault) return 0;
        before = now;
        page_bytes = (uintptr_t)sysconf(_SC_PAGESIZE);
        now.sa_sigaction = at_fault;
        now.sa_flags = SA_SIGINFO | SA_ONSTACK;
        sigemptyset(&now.sa_mask);
        return sigaction(SIGBUS, &now, NULL);
    }

    static int map_file(int fd, size_t bytes, void **at) {
        int n = 0;
        while (n < MOST && mapped[n].until) n++;
        if (n == MOST) { errno = EMFILE; return -1; }
        if (watch_faults() != 0) return -1;
        *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (*at == MAP_FAILED) return -1;
        mapped[n].lost = 0;
        mapped[n].from = (uintptr_t)*at;
        mapped[n].until = (uintptr_t)*at + ((bytes + page_bytes - 1) & ~(page_bytes - 1));
        return n;
    }

    static void unmap_file(int n, void *at, size_t bytes) {
        mapped[n].until = 0;
        munmap(at, bytes);
    }

    static int is_lost(int n) { return mapped[n].lost; }
    """
    int map_file(int fd, size_t bytes, void **at)
    void unmap_file(int n, void *at, size_t bytes)
    int is_lost(int n)
    void __sync_synchronize()


cdef class Mapping:
    """The first ``size`` bytes of a file as signed numbers of 8 bytes, in the machine's order, by place.

    Raises:
        OSError: the file can't be mapped; of any method: the mapping was lost, and is of no use.
        IndexError: there is no such place.
    """

    cdef volatile int64_t *_numbers
    cdef size_t _size
    cdef Py_ssize_t _count
    cdef int _n

    def __cinit__(self, int fd, size_t size):
        cdef void *at = NULL
        self._n = -1
        self._count = size // sizeof(int64_t)
        self._size = size
        self._n = map_file(fd, size, &at)
        if self._n < 0:
            raise OSError(errno, os.strerror(errno))
        self._numbers = <volatile int64_t *>at

    def __dealloc__(self):
        self.close()

    def close(self):
        if self._n >= 0:
            unmap_file(self._n, <void *>self._numbers, self._size)
            self._n = -1

    def get(self, Py_ssize_t place) -> int:
        """After all that was put before, whatever the processor would rather do."""
        self._hold(place)
        __sync_synchronize()
        cdef int64_t found = self._numbers[place]
        self._look()
        return found

    def put(self, Py_ssize_t place, int64_t number):
        self._hold(place)
        self._numbers[place] = number
        self._look()

    def put_between(self, Py_ssize_t place, int64_t mark, int64_t one, int64_t two):
        """``mark, one, two, mark`` from ``place`` on: the last first and the first last. So who
        reads them in order, and finds both marks the same, has the numbers that belong to it."""
        self._hold(place)
        self._hold(place + 3)
        self._numbers[place + 3] = mark
        __sync_synchronize()
        self._numbers[place + 1] = one
        self._numbers[place + 2] = two
        __sync_synchronize()
        self._numbers[place] = mark
        self._look()

    cdef int _hold(self, Py_ssize_t place) except -1:
        if self._n < 0 or not 0 <= place < self._count:
            raise IndexError(f"place {place} of {self._count}")
        return 0

    cdef int _look(self) except -1:
        if is_lost(self._n):
            raise OSError("the file was cut, or its disk is full")
        return 0
