package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
)

// get prints what is at an address, from within a node.
func get(ctx context.Context, args []string) error {
	if len(args) != 1 {
		return errors.New("usage: bench get URL")
	}
	return fetch(ctx, args[0], os.Stdout)
}

// fetch writes what is at an address to w.
func fetch(ctx context.Context, url string, w io.Writer) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", url, resp.Status)
	}
	_, err = io.Copy(w, resp.Body)
	return err
}

// heap keeps what a ztunnel's memory is made of, if profiles were asked for.
func (b *bench) heap(ctx context.Context, name, admin string) error {
	if b.profiles == "" {
		return nil
	}
	out, err := os.Create(filepath.Join(b.profiles, name+"-heap.prof"))
	if err != nil {
		return err
	}
	return errors.Join(fetch(ctx, "http://"+admin+"/debug/pprof/heap", out), out.Close())
}

// profiled takes CPU profiles of both ztunnels while f runs, if that was asked for.
func (b *bench) profiled(ctx context.Context, row string, f func() error) error {
	if b.profiles == "" {
		return f()
	}
	seconds := max(int(b.duration.Seconds())-1, 1)
	var wg sync.WaitGroup
	errs := make([]error, 2)
	for i, node := range []string{"n1", "n2"} {
		wg.Go(func() {
			out, err := exec.CommandContext(ctx, b.cli, "local", "exec", "--name", b.name, node, "--", b.self, "get",
				fmt.Sprintf("http://127.0.0.1:15000/debug/pprof/profile?seconds=%d", seconds)).Output()
			if err == nil {
				name := strings.NewReplacer(" ", "-", ",", "").Replace(row) + "-" + node + ".prof"
				err = os.WriteFile(filepath.Join(b.profiles, name), out, 0o644)
			}
			errs[i] = err
		})
	}
	err := f()
	wg.Wait()
	return errors.Join(err, errors.Join(errs...))
}
