package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// settings are those of the whole machine that a kubelet changes.
var settings = []string{"kernel/panic", "kernel/panic_on_oops", "vm/overcommit_memory", "vm/panic_on_oom", "kernel/keys/root_maxkeys", "kernel/keys/root_maxbytes"}

func (c *cluster) settingsFile() string { return filepath.Join(c.run, "settings.json") }

// keepSettings writes down what down restores, once.
func (c *cluster) keepSettings() error {
	if _, err := os.Stat(c.settingsFile()); err == nil {
		return nil
	}
	if err := os.MkdirAll(c.run, 0o755); err != nil {
		return err
	}
	// The nodes run a copy of this program, which may be built anew meanwhile.
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if err := copyFile(self, filepath.Join(c.run, "cluster"), 0o755); err != nil {
		return err
	}
	kept := map[string]string{}
	for _, s := range settings {
		if b, err := os.ReadFile("/proc/sys/" + s); err == nil {
			kept[s] = strings.TrimSpace(string(b))
		}
	}
	text, err := json.Marshal(kept)
	if err != nil {
		return err
	}
	return os.WriteFile(c.settingsFile(), text, 0o644)
}

func (c *cluster) restoreSettings() error {
	text, err := os.ReadFile(c.settingsFile())
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	var kept map[string]string
	if err := errors.Join(err, json.Unmarshal(text, &kept)); err != nil {
		return err
	}
	var all []error
	for s, v := range kept {
		all = append(all, os.WriteFile("/proc/sys/"+s, []byte(v), 0o644))
	}
	return errors.Join(all...)
}

// down takes away nodes, or everything if none is named. Keep leaves the logs.
func (c *cluster) down(names []string, keep bool) error {
	var all []error
	for _, n := range c.nodes {
		if len(names) == 0 || slices.Contains(names, n.Name) {
			all = append(all, n.Stop(), removeGroups(n))
		}
	}
	if len(names) > 0 {
		return errors.Join(all...)
	}
	all = append(all, c.control.Stop(), c.restoreSettings())
	if err := errors.Join(all...); err != nil {
		return err
	}
	if keep {
		return os.Remove(c.settingsFile())
	}
	return os.RemoveAll(c.run)
}

// removeGroups removes a node's control groups, which are empty once its processes have ended.
func removeGroups(n node) error {
	// In all hierarchies: container engines make groups in the unified one too.
	all, err := filepath.Glob(filepath.Join(cgroups, "*", groupName(n)))
	if err != nil {
		return err
	}
	var failed []error
	for _, g := range all {
		failed = append(failed, removeGroup(g))
	}
	return errors.Join(failed...)
}

// removeGroup gives the kernel a moment to count the last processes out.
func removeGroup(dir string) error {
	deadline := time.NewTimer(10 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := removeTree(dir)
		if !errors.Is(err, unix.EBUSY) {
			return err
		}
		select {
		case <-deadline.C:
			return err
		case <-tick.C:
		}
	}
}

// removeTree removes folders from the innermost on; the files in them are the kernel's.
func removeTree(dir string) error {
	var folders []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			folders = append(folders, path)
		}
		return err
	})
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	for _, f := range slices.Backward(folders) {
		if err := os.Remove(f); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("control group: %w", err)
		}
	}
	return nil
}
