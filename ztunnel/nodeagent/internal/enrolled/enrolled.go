// Package enrolled is the file in which the node agent leaves, for the CNI plugin,
// the namespaces that were enrolled when it last heard from the control plane.
// While the agent is away the plugin starts no pod of them.
//
// The file is replaced as a whole and carries a checksum: what cannot be believed
// is an error, never an empty list.
package enrolled

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

const (
	format = 1
	// maxSize bounds what is read, in bytes: some 100,000 namespaces.
	maxSize = 8 << 20
)

type file struct {
	Format     int      `json:"format"`
	Namespaces []string `json:"enrolledNamespaces"`
	// SHA256 is of the names, each followed by a newline.
	SHA256 string `json:"sha256"`
}

func sum(names []string) string {
	h := sha256.New()
	for _, n := range names {
		_, _ = io.WriteString(h, n+"\n") // a hash takes everything
	}
	return hex.EncodeToString(h.Sum(nil))
}

// Write replaces the file at path and returns when the new one is on disk.
func Write(path string, namespaces []string) error {
	names := slices.Sorted(slices.Values(namespaces))
	if i := slices.IndexFunc(names, func(n string) bool { return n == "" || strings.Contains(n, "\n") }); i >= 0 {
		return fmt.Errorf("enrolled namespaces: %q is no name of a namespace", names[i])
	}
	b, err := json.Marshal(file{Format: format, Namespaces: names, SHA256: sum(names)})
	if err != nil {
		return fmt.Errorf("enrolled namespaces: %w", err)
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("enrolled namespaces: %w", err)
	}
	if err := replace(path, append(b, '\n')); err != nil {
		return fmt.Errorf("enrolled namespaces: %w", err)
	}
	return nil
}

func replace(path string, b []byte) error {
	f, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(path+".new", path); err != nil {
		return err
	}
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Read gives the namespaces of the file at path.
func Read(path string) ([]string, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("enrolled namespaces: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxSize+1))
	if err != nil {
		return nil, fmt.Errorf("enrolled namespaces: %w", err)
	}
	names, err := parse(b)
	if err != nil {
		return nil, fmt.Errorf("enrolled namespaces: %s is damaged: %w", path, err)
	}
	return names, nil
}

func parse(b []byte) ([]string, error) {
	if len(b) > maxSize {
		return nil, fmt.Errorf("is larger than %d bytes", maxSize)
	}
	var f file
	dec := json.NewDecoder(bytes.NewReader(b))
	if err := dec.Decode(&f); err != nil {
		return nil, err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("goes on after the JSON object")
	}
	if f.Format != format {
		return nil, fmt.Errorf("format %d, want %d", f.Format, format)
	}
	if got := sum(f.Namespaces); got != f.SHA256 {
		return nil, fmt.Errorf("sha256 is %s, the names give %s", f.SHA256, got)
	}
	return f.Namespaces, nil
}
