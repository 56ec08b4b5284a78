package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// orders is what the keeper tells pid 1.
type orders struct {
	Name    string          `json:"name"`
	Path    string          `json:"path"`
	Keep    []string        `json:"keep"`
	Payload json.RawMessage `json:"payload"`
}

func ordersFile(cfg Config) (*os.File, error) {
	raw, err := json.Marshal(orders{Name: cfg.Name, Path: cfg.Path, Keep: cfg.Keep, Payload: cfg.Orders})
	if err != nil {
		return nil, fmt.Errorf("orders for pid 1: %w", err)
	}
	fd, err := unix.MemfdCreate("orders", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("orders for pid 1: %w", err)
	}
	f := os.NewFile(uintptr(fd), "orders")
	if _, err := f.WriteAt(raw, 0); err != nil {
		return nil, errors.Join(fmt.Errorf("orders for pid 1: %w", err), f.Close())
	}
	return f, nil
}

// Inside is what pid 1 knows of its sandbox.
type Inside struct {
	Name string
	// Path is the state directory, under the same path as outside.
	Path string
	// Orders are those of Config.
	Orders []byte

	report *os.File
	once   sync.Once
}

// Up tells the keeper that the sandbox is up.
func (i *Inside) Up() { i.tell(reportUp) }

// reportUp cannot be an error message.
const reportUp = "\x00up"

func (i *Inside) tell(s string) {
	i.once.Do(func() {
		// A keeper that is gone shows on the lifeline.
		_, _ = io.WriteString(i.report, s)
		i.report.Close()
	})
}

// IsInit reports whether this process was started as a sandbox's pid 1.
func IsInit() bool { return len(os.Args) == 1 && os.Args[0] == initArg && os.Getpid() == 1 }

// RunInit prepares the sandbox, runs main in it and gives the exit code. The
// context ends when the sandbox is asked to end; when the keeper is gone nobody
// is asked.
func RunInit(main func(context.Context, *Inside) error) int {
	// Threads of namespaces come and go; the main thread shows the sandbox's.
	runtime.LockOSThread()
	for fd := fdOrders; fd <= fdParent; fd++ {
		unix.CloseOnExec(fd)
	}
	in := &Inside{report: os.NewFile(fdReport, "report")}
	parent := os.NewFile(fdParent, "parent of the state directory")
	defer os.NewFile(fdLock, "lock").Close()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	o, err := prepare()
	if err == nil {
		in.Name, in.Path, in.Orders = o.Name, o.Path, o.Payload
		go abandon(os.NewFile(fdLifeline, "lifeline"), parent, o.Path)
		err = main(ctx, in)
	}
	if err != nil {
		in.tell(err.Error())
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// abandon ends everything once the keeper is gone. It is owned by the process,
// and ends with it.
func abandon(lifeline, parent *os.File, path string) {
	_, _ = io.Copy(io.Discard, lifeline)
	// Everybody in this pid namespace but pid 1 itself, so that nobody writes
	// into the directory while it is removed. For the same reason pid 1 becomes
	// another program first, which has none of its goroutines.
	_ = syscall.Kill(-1, syscall.SIGKILL)
	for _, fd := range []uintptr{parent.Fd(), fdLock} {
		// On failure the directory is a leftover that the next start removes.
		_, _ = unix.FcntlInt(fd, unix.F_SETFD, 0)
	}
	err := syscall.Exec("/proc/self/exe", []string{removerArg, path}, nil)
	fmt.Fprintln(os.Stderr, "remove the state directory:", err)
	os.Exit(1)
}

// removerArg is the argv[0] of a pid 1 that has nothing left to do but to clean
// up.
const removerArg = "ambit-local-remover"

// IsRemover reports whether this process was started to remove a state
// directory whose keeper is gone.
func IsRemover() bool { return len(os.Args) == 2 && os.Args[0] == removerArg && os.Getpid() == 1 }

// RunRemover removes the state directory and gives the exit code.
func RunRemover() int {
	path := os.Args[1]
	// By handle: the path may not be what it is outside.
	root, err := os.OpenRoot(fmt.Sprintf("/proc/self/fd/%d", fdParent))
	if err == nil {
		err = root.RemoveAll(filepath.Base(path))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "remove the state directory:", err)
		return 1
	}
	up := "../"
	for dir := filepath.Dir(path); isOurs(dir); dir = filepath.Dir(dir) {
		if unix.Unlinkat(fdParent, up+filepath.Base(dir), unix.AT_REMOVEDIR) != nil {
			break // another mesh runs
		}
		up += "../"
	}
	return 0
}

func prepare() (orders, error) {
	var o orders
	f := os.NewFile(fdOrders, "orders")
	defer f.Close()
	if err := json.NewDecoder(io.NewSectionReader(f, 0, 1<<30)).Decode(&o); err != nil {
		return o, fmt.Errorf("read the orders of pid 1: %w", err)
	}
	if err := unix.Sethostname([]byte(o.Name)); err != nil {
		return o, fmt.Errorf("set the host name: %w", err)
	}
	return o, mounts(append([]string{o.Path}, o.Keep...))
}
