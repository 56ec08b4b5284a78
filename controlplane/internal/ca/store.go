package ca

import (
	"context"
	"errors"
	"path/filepath"

	"github.com/ambit-mesh/ambit/controlplane/internal/statefile"
)

// ErrConflict is wrapped by the error of Store.Save when somebody else has saved
// since the last Load.
var ErrConflict = errors.New("changed by another replica in the meantime")

// Store keeps the authority's record. It is used by one goroutine at a time.
type Store interface {
	// Load gives the record; fs.ErrNotExist if there is none.
	Load(ctx context.Context) ([]byte, error)
	// Save replaces the record that Load or Save knew last, durably, or fails
	// with ErrConflict.
	Save(ctx context.Context, record []byte) error
	// Name says what it is, and Remedy what to do when its content is not usable.
	Name() string
	Remedy() string
}

// fileStore is a private file, for one control plane.
type fileStore struct{ path string }

func newFileStore(dir string) (*fileStore, error) {
	return &fileStore{filepath.Join(dir, recordName)}, statefile.PrivateDir(dir)
}

func (f *fileStore) Load(context.Context) ([]byte, error) {
	return statefile.ReadPrivate(f.path, maxRecord)
}

func (f *fileStore) Save(_ context.Context, record []byte) error {
	return statefile.Write(f.path, record, 0o600)
}

func (f *fileStore) Name() string { return f.path }

func (f *fileStore) Remedy() string {
	return "restore it from a backup, or delete it to begin with a new root, which every node has to be given"
}
