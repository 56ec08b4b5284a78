package netns

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Where a thread finds its network namespace. /proc/self would be that of the
// main thread, which may be elsewhere for the length of a Do.
const threadPath = "/proc/thread-self/ns/net"

// ID tells namespaces apart. It is comparable, and valid for as long as the
// namespace exists: the kernel may use an inode again afterwards.
type ID struct {
	Device uint64
	Inode  uint64
}

// String is the form that readlink of /proc/PID/ns/net has.
func (id ID) String() string { return fmt.Sprintf("net:[%d]", id.Inode) }

// Namespace holds a network namespace open. The namespace lives at least until
// Close, even when its path and its processes are gone. Safe for concurrent use.
type Namespace struct {
	id     ID
	path   string
	target *os.File
	home   *os.File // the namespace of the process, where threads return to
}

// Open opens the namespace at a path such as /run/netns/NAME or /proc/PID/ns/net.
func Open(path string) (*Namespace, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ESRCH), errors.Is(err, unix.ENOTDIR):
		return nil, fmt.Errorf("open netns %s: %w", path, ErrGone)
	case err != nil:
		return nil, fmt.Errorf("open netns %s: %w", path, err)
	}
	return fromFD(fd, path)
}

// Own opens the namespace of this process.
func Own() (*Namespace, error) {
	home, err := openHome()
	if err != nil {
		return nil, err
	}
	return fromFD(home, "")
}

// New makes an empty namespace, which lives until Close and as long as sockets
// in it do.
func New() (*Namespace, error) {
	type result struct {
		fd  int
		err error
	}
	c := make(chan result, 1)
	go func() {
		runtime.LockOSThread()
		fd, err := unshare()
		// Where the thread is not home again it ends with this goroutine.
		if !errors.Is(err, errAstray) {
			runtime.UnlockOSThread()
		}
		c <- result{fd, err}
	}()
	r := <-c
	if r.err != nil {
		return nil, fmt.Errorf("make a network namespace: %w", r.err)
	}
	return fromFD(r.fd, "")
}

var errAstray = errors.New("the thread cannot return")

// unshare moves the locked thread to a new namespace, opens it, and comes back.
func unshare() (int, error) {
	home, err := unix.Open(threadPath, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(home)
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return -1, os.NewSyscallError("unshare", err)
	}
	fd, err := unix.Open(threadPath, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if rerr := setns(home); rerr != nil {
		if err == nil {
			_ = unix.Close(fd)
		}
		return -1, fmt.Errorf("%w: %w", errAstray, rerr)
	}
	return fd, err
}

// openHome opens the namespace of the process. A new goroutine is on a thread
// that nobody has moved, whatever the caller did to its own.
func openHome() (int, error) {
	type result struct {
		fd  int
		err error
	}
	c := make(chan result, 1)
	go func() {
		fd, err := unix.Open(threadPath, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		c <- result{fd, err}
	}()
	r := <-c
	if r.err != nil {
		return -1, fmt.Errorf("open this process's netns: %w", r.err)
	}
	return r.fd, nil
}

// FromFD makes a Namespace of a descriptor, which it owns from then on: on an
// error it is closed.
func FromFD(fd int) (*Namespace, error) {
	return fromFD(fd, "")
}

func fromFD(fd int, path string) (*Namespace, error) {
	name := path
	if name == "" {
		name = fmt.Sprintf("descriptor %d", fd)
	}
	id, err := identify(fd)
	if err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("open netns %s: %w", name, err)
	}
	// A namespace file cannot be polled; blocking keeps it out of the poller.
	if err := unix.SetNonblock(fd, false); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("open netns %s: %w", name, err)
	}
	target := os.NewFile(uintptr(fd), name)
	home, err := openHome()
	if err != nil {
		_ = target.Close()
		return nil, err
	}
	n := &Namespace{id: id, path: path, target: target, home: os.NewFile(uintptr(home), threadPath)}
	// Find out now, on a thread that can be given up, whether one comes back.
	if err := n.Do(func() error { return nil }); err != nil {
		_ = n.Close()
		return nil, err
	}
	return n, nil
}

func identify(fd int) (ID, error) {
	var sfs unix.Statfs_t
	if err := unix.Fstatfs(fd, &sfs); err != nil {
		return ID{}, err
	}
	if sfs.Type != unix.NSFS_MAGIC {
		// What is left of an unmounted bind mount is an empty regular file.
		return ID{}, ErrNotNamespace
	}
	kind, err := unix.IoctlRetInt(fd, unix.NS_GET_NSTYPE)
	if err != nil || kind != unix.CLONE_NEWNET {
		return ID{}, ErrNotNamespace
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return ID{}, err
	}
	return ID{Device: st.Dev, Inode: st.Ino}, nil
}

// ID identifies the namespace.
func (n *Namespace) ID() ID { return n.id }

// Path is where the namespace was opened, empty for one that came as a descriptor.
func (n *Namespace) Path() string { return n.path }

// String names the namespace in logs and errors.
func (n *Namespace) String() string {
	if n.path == "" {
		return n.id.String()
	}
	return n.path + " " + n.id.String()
}

// Close lets the namespace go. Sockets made in it are not affected. Calls that
// are under way finish first; later ones fail with os.ErrClosed.
func (n *Namespace) Close() error {
	return errors.Join(n.target.Close(), n.home.Close())
}

// WithFD calls f with the namespace's descriptor, which stays valid until f
// returns. f must not close it.
func (n *Namespace) WithFD(f func(fd int) error) error {
	return withFD(n.target, f)
}

func withFD(file *os.File, f func(fd int) error) error {
	raw, err := file.SyscallConn()
	if err != nil {
		return err
	}
	var ferr error
	if err := raw.Control(func(fd uintptr) { ferr = f(int(fd)) }); err != nil {
		return fmt.Errorf("netns %s: %w", file.Name(), os.ErrClosed)
	}
	return ferr
}

// Do runs f in the namespace, on a thread of its own for that time, and returns
// f's error. Goroutines that f starts are not in the namespace. Where the thread
// cannot be brought back it ends with its goroutine, and Do returns an error.
func (n *Namespace) Do(f func() error) error {
	errc := make(chan error, 1)
	go func() {
		result := fmt.Errorf("netns %s: the function did not return", n)
		defer func() { errc <- result }()
		runtime.LockOSThread() // unlocked only on a thread that is home again
		err := withFD(n.target, func(fd int) error { return setns(fd) })
		if err != nil {
			runtime.UnlockOSThread()
			result = fmt.Errorf("enter netns %s: %w", n, err)
			return
		}
		err = f()
		if home := withFD(n.home, setns); home != nil {
			result = errors.Join(err, fmt.Errorf("return from netns %s: %w", n, home))
			return
		}
		runtime.UnlockOSThread()
		result = err
	}()
	return <-errc
}

func setns(fd int) error {
	err := unix.Setns(fd, unix.CLONE_NEWNET)
	if errors.Is(err, unix.EPERM) {
		return fmt.Errorf("setns: %w (needs CAP_SYS_ADMIN over the user namespace that owns it)", err)
	}
	return os.NewSyscallError("setns", err)
}

// Socket makes a socket in the namespace. It must not be called from within Do
// or from a goroutine that has moved its own thread: it returns the thread to
// the namespace of the process. The caller owns the descriptor.
func (n *Namespace) Socket(domain, typ, proto int) (fd int, err error) {
	fd = -1
	err = withFD(n.target, func(target int) error {
		return withFD(n.home, func(home int) error {
			var err error
			fd, err = socketIn(target, home, domain, typ, proto)
			return err
		})
	})
	return fd, err
}

// How often, a millisecond apart, a thread tries to come home. setns to a
// namespace that Open has shown to be reachable fails only for want of memory.
const returnAttempts = 2000

func socketIn(target, home, domain, typ, proto int) (int, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := setns(target); err != nil {
		return -1, err
	}
	fd, err := syscall.Socket(domain, typ|unix.SOCK_CLOEXEC, proto)
	rerr := setns(home)
	for i := 0; rerr != nil; i++ {
		if i == returnAttempts {
			// The caller's goroutine would go on in a foreign pod's namespace.
			panic(fmt.Sprintf("netns: cannot return from a pod's namespace: %v", rerr))
		}
		time.Sleep(time.Millisecond)
		rerr = setns(home)
	}
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	return fd, nil
}
