package process

import (
	"fmt"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// KillIn sends SIGKILL to every process whose network namespace is ns, whoever
// started it, and gives how many there were.
func KillIn(ns *os.File) (int, error) {
	var want unix.Stat_t
	if err := unix.Fstat(int(ns.Fd()), &want); err != nil {
		return 0, fmt.Errorf("stat %s: %w", ns.Name(), err)
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return 0, err
	}
	killed := 0
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		var have unix.Stat_t
		// It may have ended since the directory was read.
		if unix.Stat(fmt.Sprintf("/proc/%d/ns/net", pid), &have) != nil {
			continue
		}
		if have.Ino == want.Ino && have.Dev == want.Dev && syscall.Kill(pid, syscall.SIGKILL) == nil {
			killed++
		}
	}
	return killed, nil
}

// KillGroup sends SIGKILL to what a program that has just ended has left in its
// process group. Its pid cannot name another group yet: the kernel hands out
// pids in order and comes round to this one much later.
func KillGroup(pid int) {
	// ESRCH is the usual case: nobody is left.
	_ = syscall.Kill(-pid, syscall.SIGKILL)
}
