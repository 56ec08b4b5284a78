package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// result is what one load printed.
type result struct {
	Ops     int64         `json:"ops"`
	Bytes   int64         `json:"bytes"`
	Lost    int64         `json:"lost"` // datagrams
	Elapsed time.Duration `json:"elapsed"`
	// CPU is that of every process of the sandbox: client, server, and what is between.
	CPU time.Duration `json:"cpu"`
	P50 time.Duration `json:"p50"`
	P99 time.Duration `json:"p99"`
}

// load puts one kind of load on a target and prints a result.
func load(ctx context.Context, args []string) error {
	f := flag.NewFlagSet("load", flag.ContinueOnError)
	kind := f.String("kind", "", "bulk, roundtrip, connect, datagrams64, datagrams1200, idle or keep")
	target := f.String("target", "", "host:port")
	conns := f.Int("conns", 1, "connections at a time")
	duration := f.Duration("duration", 5*time.Second, "how long")
	on := f.String("cores", "", "to run on, such as 0,1; any if empty")
	if err := f.Parse(args); err != nil {
		return err
	}
	if *on != "" {
		if err := cores(*on).keep("self"); err != nil {
			return err
		}
	}
	l := &loader{target: *target, conns: *conns, duration: *duration}
	kinds := map[string]func(context.Context) error{
		"bulk": l.bulk, "roundtrip": l.roundTrip, "connect": l.connect, "keep": l.keep,
		"datagrams64": l.datagrams(64, 0), "datagrams1200": l.datagrams(1200, 0), "datagrams64paced": l.datagrams(64, datagramWindow), "datagrams1200paced": l.datagrams(1200, datagramWindow),
		"idle": l.idle,
	}
	if kinds[*kind] == nil {
		return fmt.Errorf("unknown kind %q", *kind)
	}
	if err := kinds[*kind](ctx); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(l.result)
}

type loader struct {
	target   string
	conns    int
	duration time.Duration
	result   result
}

// window measures what f does to the whole sandbox.
func (l *loader) window(f func() error) error {
	cpu, start := sandboxCPU(), time.Now()
	err := f()
	l.result.Elapsed = time.Since(start)
	l.result.CPU = sandboxCPU() - cpu
	return err
}

// each runs f for each connection at a time.
func (l *loader) each(f func(i int) error) error {
	errs := make(chan error, l.conns)
	for i := range l.conns {
		go func() { errs <- f(i) }()
	}
	var first error
	for range l.conns {
		if err := <-errs; err != nil && first == nil {
			first = err
		}
	}
	return first
}

func (l *loader) dialAll() ([]net.Conn, error) {
	conns := make([]net.Conn, l.conns)
	for i := range conns {
		c, err := net.DialTimeout("tcp", l.target, 10*time.Second)
		if err != nil {
			return nil, err
		}
		conns[i] = c
	}
	return conns, nil
}

func (l *loader) bulk(context.Context) error {
	conns, err := l.dialAll()
	if err != nil {
		return err
	}
	var total atomic.Int64
	return l.window(func() error {
		end := time.Now().Add(l.duration)
		err := l.each(func(i int) error {
			c, buf := conns[i], make([]byte, 256<<10)
			defer c.Close()
			for time.Now().Before(end) {
				n, err := c.Write(buf)
				if err != nil {
					return err
				}
				total.Add(int64(n))
			}
			_ = c.(*net.TCPConn).CloseWrite()
			_, err := io.ReadFull(c, buf[:1])
			return err
		})
		l.result.Bytes = total.Load()
		return err
	})
}

func (l *loader) roundTrip(context.Context) error {
	conns, err := l.dialAll()
	if err != nil {
		return err
	}
	times := make([][]time.Duration, l.conns)
	err = l.window(func() error {
		end := time.Now().Add(l.duration)
		return l.each(func(i int) error {
			defer conns[i].Close()
			buf := make([]byte, 1024)
			for at := time.Now(); at.Before(end); {
				if err := exchange(conns[i], buf); err != nil {
					return err
				}
				now := time.Now()
				times[i] = append(times[i], now.Sub(at))
				at = now
			}
			return nil
		})
	})
	l.percentiles(times)
	return err
}

func exchange(c net.Conn, buf []byte) error {
	if _, err := c.Write(buf); err != nil {
		return err
	}
	_, err := io.ReadFull(c, buf)
	return err
}

func (l *loader) connect(context.Context) error {
	times := make([][]time.Duration, l.conns)
	err := l.window(func() error {
		end := time.Now().Add(l.duration)
		return l.each(func(i int) error {
			buf := make([]byte, 64)
			for at := time.Now(); at.Before(end); {
				c, err := net.DialTimeout("tcp", l.target, 10*time.Second)
				if err != nil {
					return err
				}
				err = exchange(c, buf)
				// A reset, so that no port is left in TIME_WAIT.
				_ = c.(*net.TCPConn).SetLinger(0)
				c.Close()
				if err != nil {
					return err
				}
				now := time.Now()
				times[i] = append(times[i], now.Sub(at))
				at = now
			}
			return nil
		})
	})
	l.percentiles(times)
	return err
}

// idle opens connections, uses each once, says so, and keeps them until it is told
// to end.
func (l *loader) idle(ctx context.Context) error {
	conns, err := l.dialAll()
	if err != nil {
		return err
	}
	var mu sync.Mutex
	next := 0
	take := func() net.Conn {
		mu.Lock()
		defer mu.Unlock()
		if next == len(conns) {
			return nil
		}
		next++
		return conns[next-1]
	}
	workers := &loader{conns: 16}
	if err := workers.each(func(int) error {
		buf := make([]byte, 64)
		for c := take(); c != nil; c = take() {
			if err := exchange(c, buf); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		return err
	}
	fmt.Println("open")
	<-ctx.Done()
	return nil
}

func (l *loader) percentiles(times [][]time.Duration) {
	all := slices.Concat(times...)
	slices.Sort(all)
	l.result.Ops = int64(len(all))
	if len(all) > 0 {
		l.result.P50, l.result.P99 = all[len(all)/2], all[len(all)*99/100]
	}
}

// sandboxCPU sums user and system time of every process there is in this pid
// namespace.
func sandboxCPU() time.Duration {
	procs, _ := filepath.Glob("/proc/[0-9]*")
	var all time.Duration
	for _, p := range procs {
		all += cpuOf(p)
	}
	return all
}

// cpuOf gives user and system time of the process with this folder in /proc; 0 if it
// has ended.
func cpuOf(proc string) time.Duration {
	const tick = time.Second / 100 // USER_HZ
	b, err := os.ReadFile(proc + "/stat")
	if err != nil {
		return 0
	}
	var ticks int64
	// Fields follow the command's closing parenthesis: utime and stime are the 14th
	// and 15th of proc(5).
	_, rest, _ := strings.Cut(string(b), ") ")
	f := strings.Fields(rest)
	for _, i := range []int{11, 12} {
		if i < len(f) {
			n, _ := strconv.ParseInt(f[i], 10, 64)
			ticks += n
		}
	}
	return time.Duration(ticks) * tick
}
