package pods

import (
	"context"
	"fmt"
	"regexp"
	"time"

	"go.uber.org/zap"

	"github.com/ambit-mesh/ambit/ztunnel/nodeagent/internal/cni"
)

// A kubelet runs a static pod under the hash of its manifest, and the API server
// has a mirror of it under a uid of its own. No other pod has a uid of this form.
var staticUID = regexp.MustCompile(`^[0-9a-f]{32}$`)

// resolveLocked gives the uid that the control plane has for a pod of the kubelet.
func (s *Set) resolveLocked(uid string) string {
	if mirror, ok := s.mirrors[uid]; ok {
		return mirror
	}
	return uid
}

// named gives a static pod in a the uid of its mirror, which it waits for: as long
// as other pods do that the control plane has not named.
func (s *Set) named(ctx context.Context, a *cni.Add) error {
	if !staticUID.MatchString(a.PodUID) {
		return nil
	}
	began := time.Now()
	poll := time.NewTicker(awaitPoll)
	defer poll.Stop()
	for {
		s.mu.Lock()
		mirror := s.mirrorLocked(a)
		_, enrolled := s.enrolled[a.PodNamespace]
		leaving := s.leaving
		s.mu.Unlock()
		current, why := s.cfg.ControlPlane.Current()
		switch {
		case mirror != "":
			s.mu.Lock()
			s.mirrors[a.PodUID] = mirror
			s.mu.Unlock()
			s.cfg.Logger.Info("static pod is known by its mirror", zap.String("pod", a.PodNamespace+"/"+a.PodName), zap.String("uid", mirror), zap.String("static uid", a.PodUID))
			a.PodUID = mirror
			return nil
		case leaving, !enrolled && time.Since(began) >= s.cfg.Unenrolled, !enrolled && !current:
			return nil
		}
		select {
		case <-poll.C:
		case <-ctx.Done():
			if current {
				why = "the control plane has not named its mirror pod"
			}
			return fmt.Errorf("static pod %s/%s is not started outside the mesh: %s", a.PodNamespace, a.PodName, why)
		}
	}
}

// mirrorLocked finds the pod of that name which the control plane has named.
func (s *Set) mirrorLocked(a *cni.Add) string {
	for uid, p := range s.pods {
		if p.wanted != Unknown && p.rec.Namespace == a.PodNamespace && p.rec.Name == a.PodName && !staticUID.MatchString(uid) {
			return uid
		}
	}
	return ""
}
