//go:build linux && !race

package hbone

import (
	"syscall"
	"unsafe"
)

// Every socket here is non-blocking, so that a short call takes microseconds and
// never waits. Announcing it to the scheduler as one that may wait is of no use then,
// and in a process that was idle, which one that carries a single conversation is
// before each message, it wakes the scheduler's monitor thread, for half as much as
// the call itself costs and on the core that the next process needs. With many
// streams nothing is idle, and a thread that is taken off its core in a raw call
// keeps others from running. The race detector, which has to see what calls read
// and write, gets the other variant.

// shortWrite is up to where a write counts as short, in bytes.
const shortWrite = 8 << 10

func readFD(fd uintptr, p []byte, alone bool) (int, error) {
	if alone {
		return callFD(syscall.SYS_READ, fd, p)
	}
	return announcedRead(fd, p)
}

func writeFD(fd uintptr, p []byte, alone bool) (int, error) {
	if alone && len(p) <= shortWrite {
		return callFD(syscall.SYS_WRITE, fd, p)
	}
	return announcedWrite(fd, p)
}

func callFD(trap, fd uintptr, p []byte) (int, error) {
	for {
		n, _, errno := syscall.RawSyscall(trap, fd, uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)))
		switch errno {
		case 0:
			return int(n), nil
		case syscall.EINTR:
		default:
			return -1, errno
		}
	}
}
