package netns_test

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

var clients = map[string]func(*net.TCPConn, check) (string, error){
	"echo":      clientEcho,
	"greeting":  clientGreeting,
	"halfclose": clientHalfClose,
	"whoami":    clientWhoAmI,
	"reset":     clientReset,
	"refused":   clientRefused,

	"clientreset": clientResets,
}

// moving is a connection on which something has to move all the time. A slow machine
// takes long for many bytes, and may.
type moving struct{ c *net.TCPConn }

const stuck = time.Minute

func (c moving) Read(b []byte) (int, error) {
	_ = c.c.SetReadDeadline(time.Now().Add(stuck))
	return c.c.Read(b)
}

func (c moving) Write(b []byte) (int, error) {
	_ = c.c.SetWriteDeadline(time.Now().Add(stuck))
	return c.c.Write(b)
}

// echoed sends what there is to read, and gives how much of it came back.
func echoed(c *net.TCPConn, what io.Reader, r io.Reader, w io.Writer) (n int64, same bool, err error) {
	sent := sha256.New()
	errs := make(chan error, 1)
	go func() {
		_, err := io.Copy(io.MultiWriter(w, sent), what)
		errs <- errors.Join(err, c.CloseWrite())
	}()
	got := sha256.New()
	n, err = io.Copy(got, r)
	err = errors.Join(err, <-errs)
	return n, bytes.Equal(got.Sum(nil), sent.Sum(nil)), err
}

// until reads what another reader has until ctx ends.
type until struct {
	ctx context.Context
	io.Reader
}

func (u until) Read(b []byte) (int, error) {
	if u.ctx.Err() != nil {
		return 0, io.EOF
	}
	return u.Reader.Read(b)
}

// probeStream has bytes come back from an echo server until standard input ends.
func probeStream(addr string) error {
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	c, err := net.DialTimeout("tcp", addr, 20*time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	m := moving{c.(*net.TCPConn)}
	n, same, err := echoed(m.c, until{ctx, rand.NewChaCha8([32]byte{7})}, m, m)
	if err == nil && !same {
		err = errors.New("other bytes came back than were sent")
	}
	fmt.Printf("%d bytes came back\n", n)
	return err
}

func clientEcho(c *net.TCPConn, k check) (string, error) {
	var r io.Reader = c
	var w io.Writer = c
	if k.Size > 1<<20 {
		r, w = moving{c}, moving{c}
	}
	n, same, err := echoed(c, io.LimitReader(rand.NewChaCha8([32]byte{7}), k.Size), r, w)
	if err != nil {
		return "", err
	}
	if n != k.Size || !same {
		return "", fmt.Errorf("%d bytes came back, of %d, or others", n, k.Size)
	}
	return "", nil
}

func clientGreeting(c *net.TCPConn, _ check) (string, error) {
	b := make([]byte, 11)
	if _, err := io.ReadFull(c, b); err != nil || string(b) != "220 ready\r\n" {
		return "", fmt.Errorf("greeting %q: %w", b, err)
	}
	return clientEcho(c, check{Size: 5})
}

func clientHalfClose(c *net.TCPConn, k check) (string, error) {
	h := sha256.New()
	if _, err := io.Copy(io.MultiWriter(moving{c}, h), io.LimitReader(rand.NewChaCha8([32]byte{9}), k.Size)); err != nil {
		return "", err
	}
	if err := c.CloseWrite(); err != nil {
		return "", err
	}
	got, err := io.ReadAll(moving{c})
	if want := fmt.Sprintf("%d %s", k.Size, hex.EncodeToString(h.Sum(nil))); err != nil || string(got) != want {
		return "", fmt.Errorf("answer %q, want %q, %w", got, want, err)
	}
	return "", nil
}

func clientWhoAmI(c *net.TCPConn, _ check) (string, error) {
	b, err := io.ReadAll(c)
	if err == nil {
		_, err = netip.ParseAddr(string(b))
	}
	return string(b), err
}

func clientReset(c *net.TCPConn, _ check) (string, error) {
	if _, err := c.Write([]byte("x")); err != nil {
		return "", err
	}
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		return "", fmt.Errorf("saw %w, want a reset", err)
	}
	return "", nil
}

// clientResets resets its connection, and makes others until the server says that it
// has seen that.
func clientResets(c *net.TCPConn, k check) (string, error) {
	before, err := resetsSeen(c)
	if err != nil {
		return "", err
	}
	_ = c.SetLinger(0)
	_ = c.Close()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); {
		again, err := net.DialTimeout(cmp.Or(k.Network, "tcp"), k.Addr, 20*time.Second)
		if err != nil {
			return "", err
		}
		now, err := resetsSeen(again.(*net.TCPConn))
		_ = again.(*net.TCPConn).CloseWrite() // an orderly end, which does not count
		_, _ = io.Copy(io.Discard, again)
		_ = again.Close()
		if err != nil || now > before {
			return "", err
		}
	}
	return "", errors.New("the server saw no reset")
}

func resetsSeen(c *net.TCPConn) (n int, err error) {
	_, err = fmt.Fscanln(c, &n)
	return n, err
}

// clientRefused is content with a connection that ends without a byte.
func clientRefused(c *net.TCPConn, _ check) (string, error) {
	// A reset that the write is told of is told once: the read after it sees an end.
	if _, err := c.Write([]byte("x")); errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) {
		return "", nil
	}
	n, err := c.Read(make([]byte, 1))
	if n > 0 {
		return "", errors.New("was let in")
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		return "", fmt.Errorf("ended with %w, want a reset", err)
	}
	return "", nil
}

// probeSteady opens connection after connection to an echo server until standard
// input ends, and prints how many worked, and each failure.
func probeSteady(addr string) error {
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	ok := 0
	var failures []string
	for ctx.Err() == nil {
		c, err := net.DialTimeout("tcp", addr, 10*time.Second)
		if err == nil {
			_ = c.SetDeadline(time.Now().Add(10 * time.Second))
			_, err = clientEcho(c.(*net.TCPConn), check{Size: 100})
			c.Close()
		}
		if err != nil {
			failures = append(failures, fmt.Sprintf("%s %v", time.Now().Format("15:04:05.000"), err))
		} else {
			ok++
		}
		if ok == 1 {
			fmt.Println("first")
		}
	}
	fmt.Printf("%d %d %s\n", ok, len(failures), strings.Join(failures, "; "))
	return nil
}

// probeHold opens one connection, sends a byte for each line of standard input and
// prints what came of it.
func probeHold(network, addr string) error {
	c, err := net.DialTimeout(network, addr, 10*time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	buf := make([]byte, 1)
	for {
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		_, err := c.Write([]byte("x"))
		if err == nil {
			_, err = io.ReadFull(c, buf)
		}
		if err != nil {
			fmt.Println(err)
			return nil
		}
		fmt.Println("ok")
		if _, err := os.Stdin.Read(buf); err != nil {
			return nil
		}
	}
}

// probeSlow opens connections to a source and reads nothing of them until there is a
// line on standard input, for which it reads a megabyte of each.
func probeSlow(addr, count string) error {
	n, err := strconv.Atoi(count)
	if err != nil {
		return err
	}
	conns := make([]net.Conn, n)
	for i := range conns {
		if conns[i], err = net.DialTimeout("tcp", addr, 10*time.Second); err != nil {
			return err
		}
	}
	fmt.Println("open")
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		for _, c := range conns {
			_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
			if _, err := io.CopyN(io.Discard, c, 1<<20); err != nil {
				return err
			}
		}
		fmt.Println("read")
	}
	return nil
}
