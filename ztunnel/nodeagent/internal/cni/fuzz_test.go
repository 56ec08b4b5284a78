package cni

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"
)

func FuzzDecodeAdd(f *testing.F) {
	f.Add(`{"netns":"/run/netns/a","podName":"a","podNamespace":"b","podUID":"c","ips":["10.0.0.1","fd00::1"]}`)
	f.Add(`{"netns":"/run/netns/../../etc","podName":"a","podNamespace":"b","podUID":"c"}`)
	f.Add(`{"podUID":"c"}{}`)
	f.Add(`[]`)
	f.Add(``)
	f.Fuzz(func(t *testing.T, body string) {
		if _, err := decodeDel(strings.NewReader(body)); err != nil {
			if _, ok := errors.AsType[badRequest](err); !ok {
				t.Errorf("del: %v", err)
			}
		}
		a, err := decodeAdd(strings.NewReader(body))
		if err != nil {
			if _, ok := errors.AsType[badRequest](err); !ok {
				t.Errorf("add: %v", err)
			}
			return
		}
		if !filepath.IsAbs(a.Netns) || strings.Contains(a.Netns, "..") && filepath.Clean(a.Netns) != a.Netns {
			t.Errorf("taken: %q", a.Netns)
		}
		if a.PodUID == "" || strings.ContainsAny(a.PodUID+a.PodName+a.PodNamespace, "/\x00 \n") || len(a.Addrs) != len(a.IPs) {
			t.Errorf("taken: %+v", a)
		}
	})
}
