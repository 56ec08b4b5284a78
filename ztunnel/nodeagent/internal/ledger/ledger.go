// Package ledger keeps on disk what a node agent must still know after a restart:
// which pods it has seen, in which network namespaces, how far their capture had
// come, and which namespaces were enrolled when it last heard.
//
// The file is replaced as a whole, so that it is either the old one or the new.
package ledger

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
)

// Phase is how far a pod's capture has come.
type Phase string

// The phases of a pod.
const (
	// Released: its traffic is untouched.
	Released Phase = "released"
	// Captured: its rules are in place, or are to be.
	Captured Phase = "captured"
	// Draining: new connections are untouched, old ones still go through ztunnel.
	Draining Phase = "draining"
)

// Pod is one pod of the node.
type Pod struct {
	UID            string       `json:"uid"`
	Name           string       `json:"name"`
	Namespace      string       `json:"namespace"`
	ServiceAccount string       `json:"serviceAccount,omitempty"`
	IPs            []netip.Addr `json:"ips,omitempty"`
	// Netns is the path, Device and Inode what it led to: a path may be used
	// again for another namespace.
	Netns  string `json:"netns"`
	Device uint64 `json:"device"`
	Inode  uint64 `json:"inode"`
	Phase  Phase  `json:"phase"`
	// What differs in the rules from those of other pods.
	DNSLeftAlone bool `json:"dnsLeftAlone,omitempty"`
}

// State is all that is kept.
type State struct {
	Pods []Pod `json:"pods"`
	// Enrolled are the namespaces whose pods are enrolled by default.
	Enrolled []string `json:"enrolledNamespaces"`
}

type file struct {
	Format int `json:"format"`
	State
}

const (
	fileName = "pods.json"
	format   = 1
)

// Ledger is the file in a directory. Calls of Save must not overlap.
type Ledger struct {
	dir string
}

// Open makes the directory if needed.
func Open(dir string) (*Ledger, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	return &Ledger{dir: dir}, nil
}

// Load reads the state; without a file it is empty.
func (l *Ledger) Load() (State, error) {
	path := filepath.Join(l.dir, fileName)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return State{}, nil
	}
	if err != nil {
		return State{}, fmt.Errorf("read state: %w", err)
	}
	s, err := parse(b)
	if err != nil {
		return State{}, fmt.Errorf("state file %s is damaged: %w; restore it, or drain the node of pods and delete it", path, err)
	}
	return s, nil
}

func parse(b []byte) (State, error) {
	var f file
	if err := json.Unmarshal(b, &f); err != nil {
		return State{}, err
	}
	if f.Format != format {
		return State{}, fmt.Errorf("format %d, want %d", f.Format, format)
	}
	for i, p := range f.Pods {
		if p.UID == "" || p.Netns == "" {
			return State{}, fmt.Errorf("pods[%d]: uid and netns must be set", i)
		}
		switch p.Phase {
		case Released, Captured, Draining:
		default:
			return State{}, fmt.Errorf("pods[%d].phase %q: want released, captured or draining", i, p.Phase)
		}
	}
	return f.State, nil
}

// Save replaces the file and returns when the new one is on disk.
func (l *Ledger) Save(s State) error {
	b, err := json.MarshalIndent(file{Format: format, State: s}, "", " ")
	if err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	path := filepath.Join(l.dir, fileName)
	if err := writeSynced(path+".new", b); err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	if err := syncDir(l.dir); err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	return nil
}

// Remove deletes the file.
func (l *Ledger) Remove() error {
	if err := os.Remove(filepath.Join(l.dir, fileName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove state: %w", err)
	}
	return nil
}

func writeSynced(path string, b []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
