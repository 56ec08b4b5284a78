package controlplane

import (
	"crypto/sha256"
	"encoding/hex"
	"sync"

	"go.uber.org/zap"

	capb "github.com/ambit-mesh/ambit/apis/ca"
	"github.com/ambit-mesh/ambit/controlplane/compile"
	"github.com/ambit-mesh/ambit/internal/revocation"
)

// revocations brings the authority's revocation lists to those who check peers.
type revocations struct {
	mu      sync.Mutex
	lists   [][]byte    // guarded by mu
	clients distributor // guarded by mu; nil before distribute
	log     *zap.Logger // guarded by mu
}

// set is called when the lists are another.
func (r *revocations) set(lists [][]byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lists = lists
	r.applyLocked()
}

// distribute begins to tell clients.
func (r *revocations) distribute(clients distributor, log *zap.Logger) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.clients, r.log = clients, log
	r.applyLocked()
}

func (r *revocations) applyLocked() {
	if r.clients == nil {
		return
	}
	k := compile.Key{Type: revocation.TypeURL, Name: revocation.Name}
	delta := compile.Delta{Removed: []compile.Key{k}}
	if len(r.lists) > 0 {
		sum := sha256.New()
		for _, l := range r.lists {
			sum.Write(l)
		}
		delta = compile.Delta{Updated: []*compile.Resource{{
			Key: k, Version: hex.EncodeToString(sum.Sum(nil)[:8]), Body: &capb.RevocationLists{Lists: r.lists}, Related: func() []compile.Key { return nil },
		}}}
		r.log.Info("revocation lists distributed", zap.Int("lists", len(r.lists)))
	}
	if _, err := r.clients.Apply(delta); err != nil {
		r.log.Error("revocation lists are not distributed", zap.Error(err))
	}
}
