package hbone_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"syscall"
	"testing"

	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/testkit"
)

func TestEchoOfEverySize(t *testing.T) {
	tn := newTunnel(t, hbone.Config{}, nil)
	addr := tn.proxy(t, echo(t))
	for _, size := range []int{0, 1, 8, 9, 10, 1000, 16383, 16384, 16385, 65535, 65536, 65537, 1 << 20, 20 << 20} {
		c := dial(t, addr)
		want := make([]byte, size)
		r := rand.NewChaCha8([32]byte{byte(size)})
		_, _ = r.Read(want)
		go func() {
			_, _ = c.Write(want)
			_ = c.CloseWrite()
		}()
		got, err := io.ReadAll(c)
		if err != nil {
			t.Fatalf("%d bytes: %v", size, err)
		}
		if !bytes.Equal(got, want) {
			t.Fatalf("%d bytes: came back as %d different ones", size, len(got))
		}
	}
}

func TestManyStreamsAtOnce(t *testing.T) {
	tn := newTunnel(t, hbone.Config{}, nil)
	addr := tn.proxy(t, echo(t))
	var wg sync.WaitGroup
	for i := range 64 {
		wg.Add(1)
		c := dial(t, addr)
		go func() {
			defer wg.Done()
			h := sha256.New()
			src := io.TeeReader(io.LimitReader(rand.NewChaCha8([32]byte{byte(i)}), 3<<20+int64(i)), h)
			go func() {
				_, _ = io.Copy(c, src)
				_ = c.CloseWrite()
			}()
			back := sha256.New()
			n, err := io.Copy(back, c)
			if err != nil || n != 3<<20+int64(i) || !bytes.Equal(back.Sum(nil), h.Sum(nil)) {
				t.Errorf("stream %d: %d bytes, %v", i, n, err)
			}
		}()
	}
	wg.Wait()
}

func TestServerSpeaksFirst(t *testing.T) {
	tn := newTunnel(t, hbone.Config{}, nil)
	addr := tn.proxy(t, listen(t, func(_ context.Context, c net.Conn) { _, _ = c.Write([]byte("220 ready\r\n")) }))
	got, err := io.ReadAll(dial(t, addr))
	if err != nil || string(got) != "220 ready\r\n" {
		t.Fatalf("%q, %v", got, err)
	}
}

func TestHalfCloseKeepsTheOtherDirection(t *testing.T) {
	tn := newTunnel(t, hbone.Config{}, nil)
	addr := tn.proxy(t, listen(t, func(_ context.Context, c net.Conn) {
		b, _ := io.ReadAll(c) // until the client's half-close
		_, _ = c.Write(append([]byte("got "), b...))
	}))
	c := dial(t, addr)
	_, _ = c.Write([]byte("all"))
	_ = c.CloseWrite()
	got, err := io.ReadAll(c)
	if err != nil || string(got) != "got all" {
		t.Fatalf("%q, %v", got, err)
	}
}

func TestResetPassesThrough(t *testing.T) {
	for _, side := range []string{"client", "server"} {
		t.Run(side, func(t *testing.T) {
			tn := newTunnel(t, hbone.Config{}, nil)
			seen, first := make(chan error, 1), make(chan struct{})
			resets := func(c net.Conn) {
				_ = c.(*net.TCPConn).SetLinger(0)
				c.Close()
			}
			addr := tn.proxy(t, listen(t, func(_ context.Context, c net.Conn) {
				_, _ = c.Read(make([]byte, 1))
				close(first)
				if side == "server" {
					resets(c)
					return
				}
				_, err := c.Read(make([]byte, 1))
				seen <- err
			}))
			c := dial(t, addr)
			_, _ = c.Write([]byte("x"))
			<-first
			if side == "client" {
				resets(c)
			} else {
				_, err := c.Read(make([]byte, 1))
				seen <- err
			}
			if err := <-seen; !errors.Is(err, syscall.ECONNRESET) {
				t.Fatalf("the other side saw %v, want a reset", err)
			}
		})
	}
}

func TestRefusalCarriesItsReason(t *testing.T) {
	tn := newTunnel(t, hbone.Config{}, func(_ context.Context, in *hbone.Incoming) {
		in.Refuse(401, hbone.ProxyStatus("http_request_denied", `policy "shop/deny" rule 2`))
	})
	_, _, _, err := tn.pool.Open(t.Context(), tn.addr, hbone.Request{Authority: "10.0.0.1:80"})
	var refused *hbone.RefusedError
	if !errors.As(err, &refused) || refused.Status != 401 || refused.ProxyStatus != `ambit; error=http_request_denied; details="policy \"shop/deny\" rule 2"` {
		t.Fatalf("got %v", err)
	}
	if tn.pool.Len() != 1 {
		t.Fatal("the refusal of one stream ended the connection of all")
	}
}

func TestSlowReaderHoldsLittleAndNobodyUp(t *testing.T) {
	tn := newTunnel(t, hbone.Config{}, nil)
	stuck := make(chan struct{})
	slow := tn.proxy(t, listen(t, func(ctx context.Context, c net.Conn) {
		select {
		case <-stuck:
		case <-ctx.Done():
		}
	}))
	c := dial(t, slow)
	_ = c.SetWriteBuffer(64 << 10)
	wrote := make(chan int, 1)
	go func() {
		total := 0
		for {
			n, err := c.Write(make([]byte, 64<<10))
			if total += n; err != nil {
				wrote <- total
				return
			}
		}
	}()
	// Others on the same connection are served meanwhile.
	fast := dial(t, tn.proxy(t, echo(t)))
	for range 100 {
		_, _ = fast.Write([]byte("ping"))
		if _, err := io.ReadFull(fast, make([]byte, 4)); err != nil {
			t.Fatal(err)
		}
	}
	c.Close()
	close(stuck)
	// What was taken from the writer fits socket buffers and windows.
	if n := <-wrote; n > 24<<20 {
		t.Fatalf("%d bytes were taken for a reader that reads nothing", n)
	}
}

func TestDrainLetsStreamsEnd(t *testing.T) {
	tn := newTunnel(t, hbone.Config{}, nil)
	addr := tn.proxy(t, echo(t))
	c := dial(t, addr)
	roundTrip(t, c)
	first := <-tn.conns
	first.Drain()
	roundTrip(t, c)
	// A new stream finds its way without an error: to a new connection.
	roundTrip(t, dial(t, addr))
	select {
	case <-tn.conns:
	default:
		t.Fatal("no second connection was made")
	}
	_ = c.CloseWrite()
	if _, err := io.ReadAll(c); err != nil {
		t.Fatal(err)
	}
	testkit.Until(t, "the drained connection goes away", func() bool { return tn.pool.Len() == 1 })
}

func roundTrip(t testing.TB, c net.Conn) {
	t.Helper()
	if _, err := c.Write([]byte("0123456789")); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 10)
	if _, err := io.ReadFull(c, b); err != nil || string(b) != "0123456789" {
		t.Fatalf("%q, %v", b, err)
	}
}
