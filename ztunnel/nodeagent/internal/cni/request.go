package cni

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"path/filepath"
	"regexp"
)

// maxBody is the size of the largest request, in bytes.
const maxBody = 64 << 10

// Add is a request to start a pod.
type Add struct {
	Netns        string   `json:"netns"`
	PodName      string   `json:"podName"`
	PodNamespace string   `json:"podNamespace"`
	PodUID       string   `json:"podUID"`
	IPs          []string `json:"ips"`

	// Addrs are IPs, parsed.
	Addrs []netip.Addr `json:"-"`
}

// Del says that a pod is gone.
type Del struct {
	PodUID string `json:"podUID"`
	// Netns is the network namespace that goes, if the runtime says: a pod may
	// have a new one by then. Empty stands for whatever it has.
	Netns string `json:"netns"`
}

// The names of Kubernetes objects, and uids as kubelets and static pods have
// them.
var (
	validName = regexp.MustCompile(`^[a-z0-9]([-.a-z0-9]{0,251}[a-z0-9])?$`)
	validUID  = regexp.MustCompile(`^[A-Za-z0-9][-._A-Za-z0-9]{0,127}$`)
)

// badRequest is an error of the request, answered with status 400.
type badRequest struct{ error }

func errorf(format string, args ...any) error { return badRequest{fmt.Errorf(format, args...)} }

func decode(r io.Reader, into any) error {
	dec := json.NewDecoder(r)
	if err := dec.Decode(into); err != nil {
		if errors.Is(err, io.EOF) {
			return errorf("empty body; want a JSON object")
		}
		return errorf("body is not the JSON object that is wanted: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errorf("body goes on after the JSON object")
	}
	return nil
}

func decodeAdd(r io.Reader) (*Add, error) {
	a := &Add{}
	if err := decode(r, a); err != nil {
		return nil, err
	}
	switch {
	case !validUID.MatchString(a.PodUID):
		return nil, errorf("podUID %.140q: want 1 to 128 letters, digits, -, . and _", a.PodUID)
	case !validName.MatchString(a.PodName):
		return nil, errorf("podName %.260q: is no name of a pod", a.PodName)
	case !validName.MatchString(a.PodNamespace) || len(a.PodNamespace) > 63:
		return nil, errorf("podNamespace %.260q: is no name of a namespace", a.PodNamespace)
	case !filepath.IsAbs(a.Netns) || filepath.Clean(a.Netns) != a.Netns:
		return nil, errorf("netns %.260q: want an absolute path without . and ..", a.Netns)
	case len(a.IPs) > 16:
		return nil, errorf("ips: %d addresses, at most 16 are taken", len(a.IPs))
	}
	for _, s := range a.IPs {
		addr, err := netip.ParseAddr(s)
		if err != nil || addr.Zone() != "" {
			return nil, errorf("ips: %.60q is no IP address", s)
		}
		a.Addrs = append(a.Addrs, addr.Unmap())
	}
	return a, nil
}

func decodeDel(r io.Reader) (*Del, error) {
	d := &Del{}
	if err := decode(r, d); err != nil {
		return nil, err
	}
	if !validUID.MatchString(d.PodUID) {
		return nil, errorf("podUID %.140q: want 1 to 128 letters, digits, -, . and _", d.PodUID)
	}
	return d, nil
}
