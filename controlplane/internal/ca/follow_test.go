package ca_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

// shared is a Store in memory.
type shared struct {
	mu     sync.Mutex
	record []byte // guarded by mu
	away   error  // guarded by mu; what Load gives instead
}

func (s *shared) Load(context.Context) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.away == nil && s.record == nil {
		return nil, os.ErrNotExist
	}
	return bytes.Clone(s.record), s.away
}

func (s *shared) Save(_ context.Context, record []byte) error {
	s.set(record, nil)
	return nil
}

func (s *shared) Name() string   { return "the store" }
func (s *shared) Remedy() string { return "mend it" }

func (s *shared) set(record []byte, away error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.record, s.away = record, away
}

// A record of another authority, as a wrong backup brings it, is not taken by who runs: its certificates and those that are out
// would not trust each other. It is named until the former one is back. Who begins anew takes it, as does who was away for
// so long that a rotation may have gone by.
func TestAnotherAuthorityIsNotFollowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		other := rotationConfig(t.TempDir())
		theirs := newAuthority(t, other).Status().Roots[0].Serial
		wrong, err := os.ReadFile(filepath.Join(other.Dir, "authority.json"))
		if err != nil {
			t.Fatal(err)
		}
		core, logs := observer.New(zap.ErrorLevel)
		store := new(shared)
		cfg := rotationConfig(t.TempDir())
		cfg.Dir, cfg.BundleFile, cfg.Store, cfg.Leads, cfg.Log = "", "", store, func() bool { return true }, zap.New(core)
		a := newAuthority(t, cfg)
		defer start(t, a)()
		ours := a.Status().Roots[0].Serial
		right, err := store.Load(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		root := func(when, want string) {
			t.Helper()
			if got := a.Status().Roots; len(got) != 1 || got[0].Serial != want {
				t.Errorf("%s: %+v, want root %s", when, got, want)
			}
		}

		store.set(wrong, nil)
		time.Sleep(5 * cfg.RotationOverlap)
		synctest.Wait()
		root("another authority's record", ours)
		all := logs.TakeAll()
		if len(all) == 0 {
			t.Fatal("it is not named")
		}
		said, _ := all[0].ContextMap()["error"].(string)
		for _, want := range []string{"the store", theirs, ours, "restore", "restart the control plane"} {
			if !strings.Contains(said, want) {
				t.Errorf("%q does not say %q", said, want)
			}
		}
		if err := a.Rotate(); err == nil {
			t.Error("a root is rotated that is not stored")
		}
		if fresh := newAuthority(t, cfg).Status().Roots[0].Serial; fresh != theirs {
			t.Errorf("who begins has root %s, not that of the record, %s", fresh, theirs)
		}

		store.set(right, nil)
		time.Sleep(time.Minute)
		synctest.Wait()
		logs.TakeAll()
		time.Sleep(time.Minute)
		synctest.Wait()
		root("the former record", ours)
		if all := logs.TakeAll(); len(all) != 0 {
			t.Errorf("what was put right is still named: %v", all)
		}

		store.set(nil, errors.New("away"))
		time.Sleep(2 * cfg.RotationOverlap)
		store.set(wrong, nil)
		time.Sleep(time.Minute)
		synctest.Wait()
		root("after a rotation may have gone by", theirs)
	})
}
