package provision

import (
	"fmt"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// Facts are what has become of a Gateway's objects.
type Facts struct {
	// Hostname of the Service, "" while there is none.
	Hostname string
	// Addresses of the Service.
	Addresses []string
	// Pods behind it, and how many of them are ready.
	Pods, Ready int
	// AttachedRoutes is how many routes the waypoint carries out.
	AttachedRoutes int32
	// Refused are the reasons why its objects could not be made as they should be.
	Refused []Problem
}

// Status gives what the status of a Gateway of class ambit-waypoint should say.
// LastTransitionTime is left to whoever writes it.
func Status(gw *gatewayv1.Gateway, v Verdict, f Facts) gatewayv1.GatewayStatus {
	accepted := condition(gw, string(gatewayv1.GatewayConditionAccepted), true, string(gatewayv1.GatewayReasonAccepted), "it is a waypoint"+purpose(v))
	programmed := condition(gw, string(gatewayv1.GatewayConditionProgrammed), true, string(gatewayv1.GatewayReasonProgrammed), fmt.Sprintf("%d of %d pods are ready", f.Ready, f.Pods))
	switch {
	case len(v.Problems) > 0:
		message := joined(v.Problems) + "; until then there is no waypoint, and connections that need it are refused"
		reason := string(gatewayv1.GatewayReasonInvalidParameters)
		if v.Listener < 0 {
			reason = string(gatewayv1.GatewayReasonListenersNotValid)
		}
		accepted = condition(gw, accepted.Type, false, reason, message)
		programmed = condition(gw, programmed.Type, false, string(gatewayv1.GatewayReasonInvalid), message)
	case len(f.Refused) > 0:
		programmed = condition(gw, programmed.Type, false, string(gatewayv1.GatewayReasonInvalid), joined(f.Refused)+"; until that is put right its objects stay as they are")
	case f.Hostname == "":
		programmed = condition(gw, programmed.Type, false, string(gatewayv1.GatewayReasonAddressNotAssigned), "its Service does not exist yet")
	case f.Ready == 0:
		programmed = condition(gw, programmed.Type, false, string(gatewayv1.GatewayReasonNoResources),
			fmt.Sprintf("none of its %d pods is ready: connections that need this waypoint are refused", f.Pods))
	}
	s := gatewayv1.GatewayStatus{Conditions: []metav1.Condition{accepted, programmed}, Listeners: listeners(gw, v, f, programmed)}
	if f.Hostname != "" && len(v.Problems) == 0 {
		s.Addresses = append(s.Addresses, gatewayv1.GatewayStatusAddress{Type: new(gatewayv1.HostnameAddressType), Value: f.Hostname})
		for _, a := range f.Addresses {
			s.Addresses = append(s.Addresses, gatewayv1.GatewayStatusAddress{Type: new(gatewayv1.IPAddressType), Value: a})
		}
	}
	return s
}

func joined(problems []Problem) string {
	var all []string
	for _, p := range problems {
		all = append(all, p.String())
	}
	return strings.Join(all, "; ")
}

func purpose(v Verdict) string {
	switch {
	case v.Services && v.Workloads:
		return " for services and workloads"
	case v.Services:
		return " for services"
	case v.Workloads:
		return " for workloads"
	default:
		return " for nothing: its label waypoint-for says none"
	}
}

func condition(gw *gatewayv1.Gateway, kind string, holds bool, reason, message string) metav1.Condition {
	status := metav1.ConditionFalse
	if holds {
		status = metav1.ConditionTrue
	}
	return metav1.Condition{Type: kind, Status: status, Reason: reason, Message: message, ObservedGeneration: gw.Generation}
}
