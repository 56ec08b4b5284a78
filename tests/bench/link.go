package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// linkReady is what link prints when packets go over it.
const linkReady = "ready"

// linkName is that of the TUN device in each of the two nodes.
const linkName = "slow0"

// linkStats is what a link has done.
type linkStats struct {
	Passed, Lost, Overflowed int64
}

// link stands between two nodes until its input ends: what goes between their pods
// is handed from a TUN device in the one to a TUN device in the other, later and
// with losses. The kernel cuts what it would leave to a device to cut before that,
// so that what is lost is packets as a wire has them.
func link(_ context.Context, args []string) error {
	f := flag.NewFlagSet("link", flag.ContinueOnError)
	delay := f.Duration("delay", 0, "of each packet in each direction")
	loss := f.Float64("loss", 0, "part of the packets that is lost, in each direction")
	seed := f.Uint64("seed", 1, "of the losses")
	nodes := f.String("nodes", "", "two of PID=CIDR[+CIDR]: a process of the node and the addresses of its pods")
	if err := f.Parse(args); err != nil {
		return err
	}
	ends := strings.Split(*nodes, ",")
	if len(ends) != 2 {
		return fmt.Errorf("-nodes %q: want two", *nodes)
	}
	var devs [2]*os.File
	for i := range ends {
		pid, _, _ := strings.Cut(ends[i], "=")
		_, there, _ := strings.Cut(ends[1-i], "=")
		var err error
		if devs[i], err = openTUN(pid, strings.Split(there, "+")); err != nil {
			return fmt.Errorf("node of process %s: %w", pid, err)
		}
	}
	var stats linkStats
	var wg sync.WaitGroup
	for i := range devs {
		d := &direction{from: devs[i], to: devs[1-i], delay: *delay, loss: *loss, rand: rand.New(rand.NewPCG(*seed, uint64(i))), stats: &stats, queue: make(chan held, linkQueue)}
		wg.Go(d.receive)
		wg.Go(d.send)
	}
	fmt.Println(linkReady)
	_, _ = io.Copy(io.Discard, os.Stdin)
	for _, d := range devs {
		_ = d.Close()
	}
	wg.Wait()
	return json.NewEncoder(os.Stdout).Encode(&stats)
}

// linkQueue is how many packets are on the way in each direction: at 1500 bytes and
// 10 ms for 12 Gbit/s, far more than goes over it.
const linkQueue = 10000

// held is a packet on its way.
type held struct {
	due time.Time
	p   []byte
}

type direction struct {
	from, to *os.File
	delay    time.Duration
	loss     float64
	rand     *rand.Rand
	stats    *linkStats
	queue    chan held
}

// receive takes what the one node sends.
func (d *direction) receive() {
	defer close(d.queue)
	buf := make([]byte, 65536)
	for {
		n, err := d.from.Read(buf)
		if err != nil {
			return // closed
		}
		if d.rand.Float64() < d.loss {
			atomic.AddInt64(&d.stats.Lost, 1)
			continue
		}
		select {
		case d.queue <- held{time.Now().Add(d.delay), append([]byte(nil), buf[:n]...)}:
		default:
			atomic.AddInt64(&d.stats.Overflowed, 1)
		}
	}
}

// send hands it to the other when it is due.
func (d *direction) send() {
	for h := range d.queue {
		if wait := time.Until(h.due); wait > 0 {
			<-time.After(wait)
		}
		if _, err := d.to.Write(h.p); err == nil {
			atomic.AddInt64(&d.stats.Passed, 1)
		}
	}
}

// openTUN makes a TUN device in the network namespace of a process, and has what
// goes to some addresses go there.
func openTUN(pid string, there []string) (*os.File, error) {
	type opened struct {
		f   *os.File
		err error
	}
	done := make(chan opened)
	go func() {
		runtime.LockOSThread() // and not unlocked: the thread ends with the goroutine
		f, err := openTUNHere(pid, there)
		done <- opened{f, err}
	}()
	o := <-done
	return o.f, o.err
}

func openTUNHere(pid string, there []string) (*os.File, error) {
	ns, err := os.Open("/proc/" + pid + "/ns/net")
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
		return nil, fmt.Errorf("setns: %w", err)
	}
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("/dev/net/tun: %w", err)
	}
	req, err := unix.NewIfreq(linkName)
	if err != nil {
		return nil, err
	}
	req.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
		return nil, errors.Join(fmt.Errorf("make a TUN device: %w", err), unix.Close(fd))
	}
	dev := os.NewFile(uintptr(fd), linkName)
	l, err := netlink.LinkByName(linkName)
	if err != nil {
		return nil, errors.Join(err, dev.Close())
	}
	err = errors.Join(netlink.LinkSetTxQLen(l, linkQueue), netlink.LinkSetUp(l))
	for _, block := range there {
		err = errors.Join(err, routeHalves(l, block))
	}
	if err != nil {
		return nil, errors.Join(err, dev.Close())
	}
	return dev, nil
}

// routeHalves routes both halves of a block, which goes before the route to the
// whole.
func routeHalves(l netlink.Link, block string) error {
	b, err := netip.ParsePrefix(block)
	if err != nil {
		return err
	}
	first := b.Masked().Addr()
	raw := first.AsSlice()
	raw[b.Bits()/8] |= 0x80 >> (b.Bits() % 8)
	second, _ := netip.AddrFromSlice(raw)
	for _, a := range []netip.Addr{first, second} {
		dst, err := netlink.ParseIPNet(netip.PrefixFrom(a, b.Bits()+1).String())
		if err != nil {
			return err
		}
		if err := netlink.RouteReplace(&netlink.Route{LinkIndex: l.Attrs().Index, Dst: dst}); err != nil {
			return fmt.Errorf("route %s: %w", dst, err)
		}
	}
	return nil
}
