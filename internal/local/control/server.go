package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

const (
	socketName = "control.sock"
	// maxRequest bounds the first line of a connection.
	maxRequest = 1 << 20
	// maxFiles is how many files a request may bring.
	maxFiles = 3
)

// Backend does what is asked for.
type Backend interface {
	// Call answers an operation with one value.
	Call(ctx context.Context, op string, args json.RawMessage) (any, error)
	// Watch sends events until ctx ends or send fails.
	Watch(ctx context.Context, send func(Event) error) error
	// Flows sends what the proxies tell, one send at a time, until they have told
	// what was asked for, ctx ends or send fails.
	Flows(ctx context.Context, args FlowsArgs, send func(Flow) error) error
	// Exec runs a program with the given standard files, passes it the signals
	// and gives its exit code. When ctx ends it ends the program.
	Exec(ctx context.Context, args ExecArgs, files []*os.File, signals <-chan syscall.Signal) (int, error)
}

// Server answers requests.
type Server struct {
	listener *net.UnixListener
	backend  Backend
	log      *zap.Logger
}

// Listen opens the control socket of a state directory.
func Listen(state string, backend Backend, log *zap.Logger) (*Server, error) {
	var l *net.UnixListener
	err := inDir(state, func(dir string) error {
		var err error
		l, err = net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: filepath.Join(dir, socketName)})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	// The path is one of this process's descriptors; the directory is removed
	// as a whole.
	l.SetUnlinkOnClose(false)
	return &Server{listener: l, backend: backend, log: log}, nil
}

// inDir gives f a short path to a directory: paths of sockets may have at most
// 107 bytes.
func inDir(path string, f func(dir string) error) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	return f(fmt.Sprintf("/proc/self/fd/%d", dir.Fd()))
}

// Run serves until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	stop := context.AfterFunc(ctx, func() { s.listener.Close() })
	defer stop()
	for {
		conn, err := s.listener.AcceptUnix()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("control socket: %w", err)
		}
		wg.Go(func() {
			defer conn.Close()
			s.serve(ctx, conn)
		})
	}
}

func (s *Server) serve(ctx context.Context, conn *net.UnixConn) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// Whatever the client is waited for ends with the server.
	stop := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	enc := json.NewEncoder(conn)
	req, rest, files, err := s.receive(conn)
	defer func() {
		for _, f := range files {
			f.Close()
		}
	}()
	if err == nil {
		err = s.dispatch(ctx, cancel, req, io.MultiReader(bytes.NewReader(rest), conn), files, enc)
	}
	if err != nil {
		// A client that is gone is told nothing.
		_ = enc.Encode(frame{Error: err.Error()})
		drain(conn)
	}
}

// drain takes what the client still sends, so that the answer reaches it: a
// socket that is closed with unread bytes drops what is on its way back.
func drain(conn *net.UnixConn) {
	if conn.CloseWrite() == nil && conn.SetReadDeadline(time.Now().Add(time.Second)) == nil {
		_, _ = io.Copy(io.Discard, conn)
	}
}

func (s *Server) dispatch(ctx context.Context, cancel func(), req request, more io.Reader, files []*os.File, enc *json.Encoder) error {
	switch req.Op {
	case OpWatch:
		go gone(more, cancel)
		return s.backend.Watch(ctx, func(e Event) error { return send(enc, e) })
	case OpFlows:
		var args FlowsArgs
		if err := json.Unmarshal(req.Args, &args); err != nil {
			return fmt.Errorf("flows: %w", err)
		}
		go gone(more, cancel)
		return s.backend.Flows(ctx, args, func(f Flow) error { return send(enc, f) })
	case OpExec:
		var args ExecArgs
		if err := json.Unmarshal(req.Args, &args); err != nil {
			return fmt.Errorf("exec: %w", err)
		}
		if len(files) != maxFiles {
			return fmt.Errorf("exec: want %d files, have %d", maxFiles, len(files))
		}
		signals := make(chan syscall.Signal, 8)
		go relay(ctx, more, signals, cancel)
		code, err := s.backend.Exec(ctx, args, files, signals)
		if err != nil {
			return err
		}
		return enc.Encode(frame{Exit: &code})
	default:
		answer, err := s.backend.Call(ctx, req.Op, req.Args)
		if err != nil {
			return err
		}
		return send(enc, answer)
	}
}

func send(enc *json.Encoder, v any) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return enc.Encode(frame{Data: raw})
}

// gone waits for the client's end. It ends with the connection.
func gone(r io.Reader, cancel func()) {
	_, _ = io.Copy(io.Discard, r)
	cancel()
}

// relay passes on the client's signals. It ends with the connection.
func relay(ctx context.Context, r io.Reader, signals chan<- syscall.Signal, cancel func()) {
	defer cancel()
	dec := json.NewDecoder(r)
	for {
		var f frame
		if dec.Decode(&f) != nil {
			return
		}
		select {
		case signals <- syscall.Signal(f.Signal):
		case <-ctx.Done():
			return
		}
	}
}

// receive reads the first line and the files that come with it.
func (s *Server) receive(conn *net.UnixConn) (req request, rest []byte, files []*os.File, err error) {
	if err := checkPeer(conn); err != nil {
		return req, nil, nil, err
	}
	var line []byte
	buf, oob := make([]byte, 32<<10), make([]byte, unix.CmsgSpace(4*maxFiles))
	for {
		n, oobn, _, _, err := conn.ReadMsgUnix(buf, oob)
		if err != nil {
			return req, nil, files, err
		}
		more, err := descriptors(oob[:oobn])
		files = append(files, more...)
		if err != nil {
			return req, nil, files, err
		}
		line = append(line, buf[:n]...)
		if i := bytes.IndexByte(line, '\n'); i >= 0 {
			if err := json.Unmarshal(line[:i], &req); err != nil {
				return req, nil, files, fmt.Errorf("request: %w", err)
			}
			return req, line[i+1:], files, nil
		}
		if n == 0 || len(line) > maxRequest || len(files) > maxFiles {
			return req, nil, files, errors.New("request: not one line of JSON")
		}
	}
}

func descriptors(oob []byte) ([]*os.File, error) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, fmt.Errorf("request: %w", err)
	}
	var files []*os.File
	for _, m := range messages {
		fds, err := unix.ParseUnixRights(&m)
		if err != nil {
			continue // another kind of message
		}
		for _, fd := range fds {
			unix.CloseOnExec(fd)
			files = append(files, os.NewFile(uintptr(fd), "file of the client"))
		}
	}
	return files, nil
}

// checkPeer lets only this user in.
func checkPeer(conn *net.UnixConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var cred *unix.Ucred
	var cerr error
	if err := raw.Control(func(fd uintptr) { cred, cerr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); err != nil {
		return err
	}
	if cerr != nil {
		return cerr
	}
	if int(cred.Uid) != os.Getuid() {
		return errors.New("this local mesh belongs to another user")
	}
	return nil
}
