package sandbox

import (
	"regexp"
	"strings"
)

// A pod's cgroup, as the drivers of kubelets spell it:
//
//	cgroupfs: kubepods/burstable/pod4f1c…-…/<container>
//	systemd:  kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod4f1c…_….slice/cri-containerd-<id>.scope
//	mixed up: kubepods-burstable-pod4f1c…_….slice:cri-containerd:<id>
//
// The uid of a static pod is a hash of 32 digits. A slice has _ where the uid has -.
var podCgroup = regexp.MustCompile(`^(?:.*-)?pod([0-9a-f]{8}(?:[-_][0-9a-f]{4}){3}[-_][0-9a-f]{12}|[0-9a-f]{32})(?:\.slice)?(?::.*)?$`)

// podOf gives the uid of the pod that a process belongs to, from its
// /proc/PID/cgroup; empty if it belongs to none. The outermost cgroup counts: what
// is below it, the pod itself can make.
func podOf(cgroup string) string {
	for line := range strings.Lines(cgroup) {
		// hierarchy:controllers:path
		f := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(f) != 3 {
			continue
		}
		for _, dir := range strings.Split(f[2], "/") {
			if m := podCgroup.FindStringSubmatch(dir); m != nil {
				return strings.ReplaceAll(m[1], "_", "-")
			}
		}
	}
	return ""
}
