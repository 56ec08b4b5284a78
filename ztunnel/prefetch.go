package ztunnel

import (
	"context"

	"github.com/ambit-mesh/ambit/internal/certs"
	"github.com/ambit-mesh/ambit/internal/identity"
	"github.com/ambit-mesh/ambit/internal/wds"
)

// prefetch keeps certificates of the identities that the control plane says run on
// this node, so that they are there before the first connection needs them.
type prefetch struct {
	store *wds.Store
	certs *certs.Manager
	node  string
	kick  chan struct{}
}

func newPrefetch(store *wds.Store, manager *certs.Manager, node string) *prefetch {
	return &prefetch{store: store, certs: manager, node: node, kick: make(chan struct{}, 1)}
}

// changed says that workloads came or went.
func (p *prefetch) changed() {
	select {
	case p.kick <- struct{}{}:
	default:
	}
}

// Run follows the store until ctx ends.
func (p *prefetch) Run(ctx context.Context) error {
	held := make(map[identity.ID]func())
	defer func() {
		for _, release := range held {
			release()
		}
	}()
	for {
		want := p.store.Identities(p.node)
		for id := range want {
			if held[id] == nil {
				_, held[id] = p.certs.Use(id)
			}
		}
		for id, release := range held {
			if _, ok := want[id]; !ok {
				release()
				delete(held, id)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-p.kick:
		}
	}
}
