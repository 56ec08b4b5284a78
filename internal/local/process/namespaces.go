package process

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// Namespaces are handles of the namespaces that a program is to run in. Where
// one is nil the program stays in those of the sandbox.
type Namespaces struct {
	Net   *os.File
	Mount *os.File
	UTS   *os.File
}

// Close closes the handles. The namespaces live on as long as a process or a
// mount holds them.
func (n *Namespaces) Close() error {
	var errs []error
	for _, f := range []**os.File{&n.Net, &n.Mount, &n.UTS} {
		if *f != nil {
			errs = append(errs, (*f).Close())
			*f = nil
		}
	}
	return errors.Join(errs...)
}

// Unshare makes new namespaces by the CLONE_NEW* flags, runs setup inside them
// and gives handles of those that are new.
func Unshare(flags int, setup func() error) (*Namespaces, error) {
	var ns Namespaces
	err := onSpareThread(func() error {
		if err := unix.Unshare(flags); err != nil {
			return fmt.Errorf("make namespaces: %w", err)
		}
		if setup != nil {
			if err := setup(); err != nil {
				return err
			}
		}
		for _, want := range []struct {
			flag int
			name string
			file **os.File
		}{
			{unix.CLONE_NEWNET, "net", &ns.Net},
			{unix.CLONE_NEWNS, "mnt", &ns.Mount},
			{unix.CLONE_NEWUTS, "uts", &ns.UTS},
		} {
			if flags&want.flag == 0 {
				continue
			}
			f, err := os.Open("/proc/thread-self/ns/" + want.name)
			if err != nil {
				return fmt.Errorf("open the new %s namespace: %w", want.name, err)
			}
			*want.file = f
		}
		return nil
	})
	if err != nil {
		return nil, errors.Join(err, ns.Close())
	}
	return &ns, nil
}

// InNet runs fn in a thread that has joined the network namespace. Sockets that
// fn opens stay in that namespace; goroutines that it starts do not run there.
func InNet(ns *os.File, fn func() error) error {
	return onSpareThread(func() error {
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("join network namespace %s: %w", ns.Name(), err)
		}
		return fn()
	})
}

// onSpareThread runs fn in a thread that ends afterwards, so that whatever fn
// did to the thread's namespaces is gone with it. The main thread is spared: it
// never ends, and /proc/self shows its namespaces.
func onSpareThread(fn func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			defer runtime.UnlockOSThread()
			done <- onSpareThread(fn)
			return
		}
		done <- fn()
	}()
	return <-done
}
