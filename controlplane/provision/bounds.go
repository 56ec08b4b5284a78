package provision

import (
	"fmt"
	"slices"
	"strings"
	"time"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/ambit-mesh/ambit/internal/limits"
)

// annotationPrefix and the name of a bound are the annotation that sets it.
const annotationPrefix = "ambit-mesh.io/waypoint-"

// checkBounds reads the annotations about the bounds of the waypoint.
func checkBounds(gw *gatewayv1.Gateway) (problems []Problem) {
	head := int64(limits.DefaultHeaderBytes)
	for _, l := range limits.All() {
		key := annotationPrefix + l.Name
		value, ok := setting(gw, key)
		if !ok {
			continue
		}
		if err := l.Check(value); err != nil {
			problems = append(problems, Problem{settingField(gw, key), err.Error()})
			continue
		}
		n, _ := l.Parse(value)
		switch l.Name {
		case limits.MaxHeaderBytes:
			head = n
		case limits.MaxTargetBytes:
			if n > head {
				problems = append(problems, Problem{settingField(gw, key), fmt.Sprintf("%q is more than a head may have, %d bytes: raise %s%s, too", value, head, annotationPrefix, limits.MaxHeaderBytes)})
			}
		}
	}
	return problems
}

// Unknown names the annotations that look like settings of a waypoint and are none:
// what somebody has misspelt. They keep no waypoint from being made, as they may be
// of a version to come.
func Unknown(gw *gatewayv1.Gateway) (problems []Problem) {
	known := []string{AnnotationReplicas, AnnotationMaxReplicas, AnnotationCPUTarget}
	for _, r := range resourceAnnotations() {
		known = append(known, r.key)
	}
	for _, l := range limits.All() {
		known = append(known, annotationPrefix+l.Name)
	}
	look := func(field, key string) {
		if strings.HasPrefix(key, annotationPrefix) && !slices.Contains(known, key) {
			problems = append(problems, Problem{field + "[" + key + "]", "is no setting of a waypoint and has no effect: correct its name, or remove it"})
		}
	}
	for key := range gw.Annotations {
		look("metadata.annotations", key)
	}
	if i := gw.Spec.Infrastructure; i != nil {
		for key := range i.Annotations {
			look("spec.infrastructure.annotations", string(key))
		}
	}
	return problems
}

// bounds gives the flags of the program for what annotations say. It expects a
// Gateway that Check found no problem with.
func bounds(gw *gatewayv1.Gateway) (args []string) {
	for _, l := range limits.All() {
		if value, ok := setting(gw, annotationPrefix+l.Name); ok {
			args = append(args, "--"+l.Name+"="+value)
		}
	}
	return args
}

// delaySeconds is for how long a waypoint that is told to stop serves on as before: the
// nodes hear of it at the same time, and some a moment later, as while a replica of the
// control plane is replaced. leaveSeconds is what it has beside that and its drain time
// to end: to be told, and to stop what is left.
const (
	delaySeconds = 5
	leaveSeconds = 35
)

// grace gives the seconds that a pod has to end.
func grace(gw *gatewayv1.Gateway) int64 {
	value, _ := setting(gw, annotationPrefix+limits.DrainTimeout)
	d, err := time.ParseDuration(value)
	if err != nil {
		return graceSeconds
	}
	return max(graceSeconds, int64(d/time.Second)+delaySeconds+leaveSeconds)
}
