package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// Client asks the supervisor of one sandbox. Each call is a connection.
type Client struct{ state string }

// NewClient gives a client for the sandbox of a state directory.
func NewClient(state string) *Client { return &Client{state: state} }

// RemoteError is the supervisor's answer that something is not possible.
type RemoteError struct{ Message string }

func (e *RemoteError) Error() string { return e.Message }

func (c *Client) open(ctx context.Context, op string, args any, files ...*os.File) (*net.UnixConn, error) {
	var conn net.Conn
	err := inDir(c.state, func(dir string) error {
		var d net.Dialer
		var err error
		conn, err = d.DialContext(ctx, "unix", filepath.Join(dir, socketName))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("reach the local mesh: %w", err)
	}
	uc := conn.(*net.UnixConn)
	raw, err := json.Marshal(args)
	if err == nil {
		raw, err = json.Marshal(request{Op: op, Args: raw})
	}
	if err == nil {
		err = write(uc, append(raw, '\n'), files)
	}
	if err != nil {
		uc.Close()
		return nil, fmt.Errorf("ask the local mesh: %w", err)
	}
	return uc, nil
}

// write sends a line; files travel with its first bytes.
func write(conn *net.UnixConn, line []byte, files []*os.File) error {
	var fds []int
	for _, f := range files {
		fds = append(fds, int(f.Fd()))
	}
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	n, _, err := conn.WriteMsgUnix(line, oob, nil)
	if err == nil && n < len(line) {
		_, err = conn.Write(line[n:])
	}
	if errors.Is(err, unix.EPIPE) {
		return nil // the answer says why
	}
	return err
}

// Call asks for one answer and decodes it into answer, which may be nil.
func (c *Client) Call(ctx context.Context, op string, args, answer any) error {
	conn, err := c.open(ctx, op, args)
	if err != nil {
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	var f frame
	if err := json.NewDecoder(conn).Decode(&f); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return fmt.Errorf("the local mesh ended while it was asked: %w", err)
	}
	if f.Error != "" {
		return &RemoteError{Message: f.Error}
	}
	if answer == nil {
		return nil
	}
	return json.Unmarshal(f.Data, answer)
}

// Watch hands events to each until that says stop, ctx ends, or the sandbox
// does, which is io.EOF.
func (c *Client) Watch(ctx context.Context, each func(Event) (stop bool)) error {
	return stream(ctx, c, OpWatch, nil, each)
}

// Flows hands what proxies tell to each until that says stop or ctx ends. The end
// of the stream is nil; it ends by itself only when the request does not follow,
// or with the sandbox.
func (c *Client) Flows(ctx context.Context, args FlowsArgs, each func(Flow) (stop bool)) error {
	if err := stream(ctx, c, OpFlows, args, each); err != io.EOF {
		return err
	}
	return nil
}

// stream hands the values of a stream to each until that says stop or ctx ends.
// The end of the stream is io.EOF.
func stream[T any](ctx context.Context, c *Client, op string, args any, each func(T) (stop bool)) error {
	conn, err := c.open(ctx, op, args)
	if err != nil {
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	dec := json.NewDecoder(conn)
	for {
		var f frame
		if err := dec.Decode(&f); err != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return io.EOF
		}
		if f.Error != "" {
			return &RemoteError{Message: f.Error}
		}
		var v T
		if err := json.Unmarshal(f.Data, &v); err != nil {
			return err
		}
		if each(v) {
			return nil
		}
	}
}

// Exec runs a program inside with the given standard files, passes on signals,
// and gives its exit code.
func (c *Client) Exec(ctx context.Context, args ExecArgs, files [3]*os.File, signals <-chan os.Signal) (int, error) {
	conn, err := c.open(ctx, OpExec, args, files[:]...)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	done := make(chan struct{})
	defer close(done)
	go func() {
		enc := json.NewEncoder(conn)
		for {
			select {
			case <-done:
				return
			case s := <-signals:
				if sig, ok := s.(syscall.Signal); ok && enc.Encode(frame{Signal: int(sig)}) != nil {
					return
				}
			}
		}
	}()
	var f frame
	err = json.NewDecoder(conn).Decode(&f)
	switch {
	case err != nil && ctx.Err() != nil:
		return 0, context.Cause(ctx)
	case err != nil:
		return 0, errors.New("the local mesh ended before the program did")
	case f.Exit == nil:
		return 0, &RemoteError{Message: f.Error}
	}
	return *f.Exit, nil
}
