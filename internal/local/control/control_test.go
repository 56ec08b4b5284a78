package control_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/goleak"
	"go.uber.org/zap"

	"github.com/ambit-mesh/ambit/internal/local/control"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fake answers as the supervisor would.
type fake struct{}

func (fake) Call(_ context.Context, op string, args json.RawMessage) (any, error) {
	if op == "fail" {
		return nil, errors.New("it is not possible: do something else")
	}
	return map[string]string{"op": op, "args": string(args)}, nil
}

func (fake) Watch(ctx context.Context, send func(control.Event) error) error {
	for i := range 3 {
		if err := send(control.Event{Message: fmt.Sprint(i)}); err != nil {
			return err
		}
	}
	<-ctx.Done()
	return nil
}

func (fake) Flows(ctx context.Context, a control.FlowsArgs, send func(control.Flow) error) error {
	for _, b := range a.Request {
		if err := send(control.Flow{From: "n1/ztunnel", Record: []byte{b}}); err != nil {
			return err
		}
	}
	if len(a.Request) == 0 {
		<-ctx.Done()
	}
	return nil
}

// Exec copies what it reads, waits for a signal, and takes its number as the
// exit code.
func (fake) Exec(ctx context.Context, a control.ExecArgs, files []*os.File, signals <-chan syscall.Signal) (int, error) {
	if a.Name == "nobody" {
		return 0, errors.New("nobody is called that")
	}
	if _, err := io.Copy(files[1], files[0]); err != nil {
		return 0, err
	}
	fmt.Fprint(files[2], strings.Join(a.Argv, " "))
	select {
	case s := <-signals:
		return int(s), nil
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// serve runs a server and gives its state directory, whose path is longer than
// a socket's may be.
func serve(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), strings.Repeat("long", 40))
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	s, err := control.Listen(dir, fake{}, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return dir
}

func TestCall(t *testing.T) {
	c := control.NewClient(serve(t))
	var answer struct{ Op, Args string }
	if err := c.Call(t.Context(), "x", control.GetArgs{Kind: "pods"}, &answer); err != nil {
		t.Fatal(err)
	}
	if answer.Op != "x" || answer.Args != `{"kind":"pods"}` {
		t.Errorf("%+v", answer)
	}
	err := c.Call(t.Context(), "fail", nil, nil)
	var remote *control.RemoteError
	if !errors.As(err, &remote) || err.Error() != "it is not possible: do something else" {
		t.Errorf("%v", err)
	}
}

func TestCallWithoutServer(t *testing.T) {
	if err := control.NewClient(t.TempDir()).Call(t.Context(), "x", nil, nil); err == nil || !strings.HasPrefix(err.Error(), "reach the local mesh: ") {
		t.Error(err)
	}
}

func TestWatchEndsWhenToldTo(t *testing.T) {
	c := control.NewClient(serve(t))
	var got []string
	err := c.Watch(t.Context(), func(e control.Event) bool {
		got = append(got, e.Message)
		return len(got) == 2
	})
	if err != nil || strings.Join(got, " ") != "0 1" {
		t.Errorf("%v %v", got, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	err = c.Watch(ctx, func(e control.Event) bool {
		if e.Message == "2" {
			cancel()
		}
		return false
	})
	if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestFlows(t *testing.T) {
	c := control.NewClient(serve(t))
	var got []byte
	each := func(f control.Flow) bool {
		got = append(got, f.Record...)
		return len(got) == 4
	}
	if err := c.Flows(t.Context(), control.FlowsArgs{Request: []byte{1, 2, 3}}, each); err != nil || string(got) != "\x01\x02\x03" {
		t.Errorf("%v %v", got, err)
	}
	if err := c.Flows(t.Context(), control.FlowsArgs{Request: []byte{4, 5}}, each); err != nil || len(got) != 4 {
		t.Errorf("%v %v after it was told to stop", got, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.Flows(ctx, control.FlowsArgs{}, each); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestExecPassesFilesAndSignals(t *testing.T) {
	c := control.NewClient(serve(t))
	dir := t.TempDir()
	var files [3]*os.File
	for i, name := range []string{"in", "out", "err"} {
		f, err := os.Create(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		files[i] = f
	}
	if _, err := files[0].WriteAt([]byte("hello"), 0); err != nil {
		t.Fatal(err)
	}
	signals := make(chan os.Signal, 1)
	signals <- syscall.SIGUSR1
	code, err := c.Exec(t.Context(), control.ExecArgs{Argv: []string{"a", "b"}}, files, signals)
	if err != nil || code != int(syscall.SIGUSR1) {
		t.Errorf("%d %v", code, err)
	}
	for name, want := range map[string]string{"out": "hello", "err": "a b"} {
		if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(got) != want {
			t.Errorf("%s: %q %v", name, got, err)
		}
	}
	if _, err := c.Exec(t.Context(), control.ExecArgs{Target: control.Target{Name: "nobody"}}, files, nil); err == nil || err.Error() != "nobody is called that" {
		t.Error(err)
	}
}

func TestBadRequestsAreAnswered(t *testing.T) {
	dir := serve(t)
	for name, tc := range map[string]struct{ line, want string }{
		"no JSON":            {"hello\n", "request: invalid character"},
		"exec without files": {`{"op":"exec","args":{}}` + "\n", "exec: want 3 files, have 0"},
		"exec of nonsense":   {`{"op":"exec","args":7}` + "\n", "exec: json"},
		"too long":           {strings.Repeat("x", 2<<20), "request: not one line of JSON"},
	} {
		t.Run(name, func(t *testing.T) {
			d, err := os.Open(dir)
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			conn, err := net.Dial("unix", fmt.Sprintf("/proc/self/fd/%d/control.sock", d.Fd()))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			// The server may answer before it has read everything.
			go func() { _, _ = io.WriteString(conn, tc.line) }()
			answer, err := bufio.NewReader(conn).ReadString('\n')
			var f struct{ Error string }
			if err != nil || json.Unmarshal([]byte(answer), &f) != nil || !strings.HasPrefix(f.Error, tc.want) {
				t.Errorf("answer %q, %v; want %q", answer, err, tc.want)
			}
		})
	}
}
