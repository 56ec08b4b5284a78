package controlplane

import (
	"encoding/json"
	"errors"
	"net/http"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/ambit-mesh/ambit/controlplane/compile"
	"github.com/ambit-mesh/ambit/controlplane/internal/ca"
	"github.com/ambit-mesh/ambit/controlplane/internal/xds"
	"github.com/ambit-mesh/ambit/internal/admin"
)

// dumped is one resource in /config_dump.
type dumped struct {
	Name    string          `json:"name"`
	Version string          `json:"version"`
	Aliases []string        `json:"aliases,omitempty"`
	Node    string          `json:"node,omitempty"`
	Body    json.RawMessage `json:"body"`
}

// debugStatus is what /debug/status shows.
type debugStatus struct {
	Pending   []string              `json:"pending"`
	Version   uint64                `json:"version"`
	Problems  []problem             `json:"problems"`
	Findings  []compile.Finding     `json:"findings"`
	Statuses  []compile.Status      `json:"statuses"`
	Routes    []compile.RouteStatus `json:"routes"`
	Captured  []compile.CapturedPod `json:"captured"`
	Releasing []compile.Release     `json:"releasing"`
	CA        ca.Status             `json:"ca"`
}

// problem is one manifest problem in /debug/status.
type problem struct {
	At      string `json:"at"`
	Object  string `json:"object,omitempty"`
	Field   string `json:"field,omitempty"`
	Message string `json:"message"`
}

// adminHandler serves what can be looked into on loopback.
func (c *ControlPlane) adminHandler() http.Handler {
	mux := admin.NewMux(c.cfg.Level)
	mux.HandleFunc("GET /config_dump", c.configDump)
	mux.HandleFunc("GET /debug/clients", func(w http.ResponseWriter, _ *http.Request) {
		admin.WriteJSON(w, notNil(c.xds.Clients()))
	})
	mux.HandleFunc("GET /debug/status", func(w http.ResponseWriter, _ *http.Request) {
		admin.WriteJSON(w, c.status())
	})
	mux.HandleFunc("POST /ca/rotate", c.rotate)
	return mux
}

func (c *ControlPlane) status() debugStatus {
	s := debugStatus{
		Pending: c.ready.Pending(), Version: c.xds.Version(), Problems: []problem{},
		Findings: notNil(c.compiler.Findings()), Statuses: notNil(c.compiler.Statuses()), Routes: notNil(c.compiler.RouteStatuses()),
		Captured: notNil(c.compiler.Captured()), Releasing: notNil(c.compiler.Releasing()),
		CA: c.ca.Status(),
	}
	for _, p := range c.engine.currentProblems() {
		s.Problems = append(s.Problems, problem{At: p.Position.String(), Object: p.Object, Field: p.Field, Message: p.Message})
	}
	return s
}

// notNil makes an empty list [] and not null.
func notNil[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

// configDump shows what is distributed, by type.
func (c *ControlPlane) configDump(w http.ResponseWriter, _ *http.Request) {
	dump := make(map[string][]dumped)
	for _, t := range []string{compile.TypeAddress, compile.TypeAuthorization, compile.TypePod, compile.TypeNamespace, compile.TypeFrontend, compile.TypeBackend} {
		dump[t] = []dumped{}
		for _, r := range c.compiler.Resources(t) {
			body, err := protojson.Marshal(r.Body)
			if err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
			dump[t] = append(dump[t], dumped{Name: r.Name, Version: r.Version, Aliases: r.Aliases, Node: r.Node, Body: body})
		}
	}
	admin.WriteJSON(w, dump)
}

func (c *ControlPlane) rotate(w http.ResponseWriter, _ *http.Request) {
	if err := c.ca.Rotate(); err != nil {
		code := http.StatusInternalServerError
		if errors.Is(err, ca.ErrRotation) {
			code = http.StatusConflict
		}
		http.Error(w, err.Error(), code)
		return
	}
	admin.WriteJSON(w, c.ca.Status())
}

var _ distributor = (*xds.Server)(nil)
