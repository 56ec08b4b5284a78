package otlp

import (
	"strconv"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	semconv "go.opentelemetry.io/otel/semconv/v1.37.0"
	oteltrace "go.opentelemetry.io/otel/trace"

	"github.com/ambit-mesh/ambit/internal/trace"
)

// Keys that the conventions do not have.
const (
	keyRoute               = attribute.Key("ambit.route")
	keyRule                = attribute.Key("ambit.rule")
	keyBackend             = attribute.Key("ambit.backend")
	keySourceIdentity      = attribute.Key("ambit.source.identity")
	keyDestinationIdentity = attribute.Key("ambit.destination.identity")
	keySourceWorkload      = attribute.Key("ambit.source.workload")
	keyDestinationWorkload = attribute.Key("ambit.destination.workload")
	keyRetries             = attribute.Key("ambit.retries")
	keyPolicy              = attribute.Key("ambit.policy")
	keyPolicyRule          = attribute.Key("ambit.policy.rule")
	keyWaypoint            = attribute.Key("ambit.waypoint")
)

// list gathers what is set.
type list []attribute.KeyValue

// str adds a string. What comes from a client may be any bytes, and one that is not
// UTF-8 would cost the whole batch, which protobuf does not take then.
func (l *list) str(k attribute.Key, v string) {
	if v != "" {
		*l = append(*l, k.String(strings.ToValidUTF8(v, "\uFFFD")))
	}
}

func (l *list) num(k attribute.Key, v int64) {
	if v != 0 {
		*l = append(*l, k.Int64(v))
	}
}

// set writes the attributes, and the status, to a span.
func set(s oteltrace.Span, a *trace.Attributes) {
	l := make(list, 0, 32)
	http(&l, a)
	if a.GRPC {
		l = append(l, semconv.RPCSystemGRPC, semconv.RPCGRPCStatusCodeKey.Int(a.GRPCStatus))
		l.str(semconv.RPCServiceKey, a.GRPCService)
		l.str(semconv.RPCMethodKey, a.GRPCMethod)
	}
	l.str(keyRoute, a.Route)
	l.str(keyRule, a.Rule)
	l.str(keyBackend, a.Backend)
	l.str(keySourceIdentity, a.SourceIdentity)
	l.str(keyDestinationIdentity, a.DestinationIdentity)
	l.str(keySourceWorkload, a.SourceWorkload)
	l.str(keyDestinationWorkload, a.DestinationWorkload)
	l.num(keyRetries, int64(a.Retries))
	l.str(keyPolicy, a.Policy)
	l.str(keyPolicyRule, a.PolicyRule)
	l.str(keyWaypoint, a.Waypoint)
	if class := failure(a); class != "" {
		l.str(semconv.ErrorTypeKey, class)
		s.SetStatus(codes.Error, a.Error)
	}
	s.SetAttributes(extra(l, a.Extra)...)
}

// extra adds what a configuration asks for. Of attributes with one name the last
// counts.
func extra(l list, asked []trace.Extra) list {
	own := l
	for _, e := range asked {
		if e.Of == "" {
			l = append(l, attribute.String(strings.ToValidUTF8(e.Name, "\uFFFD"), strings.ToValidUTF8(e.Value, "\uFFFD")))
			continue
		}
		for _, kv := range own {
			if string(kv.Key) == e.Of {
				l = append(l, attribute.KeyValue{Key: attribute.Key(e.Name), Value: kv.Value})
				break
			}
		}
	}
	return l
}

func http(l *list, a *trace.Attributes) {
	if method := known(a.Method); method != a.Method {
		l.str(semconv.HTTPRequestMethodKey, method)
		l.str(semconv.HTTPRequestMethodOriginalKey, a.Method)
	} else {
		l.str(semconv.HTTPRequestMethodKey, method)
	}
	l.str(semconv.URLSchemeKey, a.Scheme)
	l.str(semconv.URLPathKey, a.Path)
	l.str(semconv.ServerAddressKey, a.Host)
	l.num(semconv.ServerPortKey, int64(a.Port))
	if a.Version != "" {
		l.str(semconv.NetworkProtocolNameKey, "http")
		l.str(semconv.NetworkProtocolVersionKey, a.Version)
	}
	l.str(semconv.UserAgentOriginalKey, a.UserAgent)
	l.str(semconv.NetworkPeerAddressKey, a.PeerAddress)
	l.num(semconv.NetworkPeerPortKey, int64(a.PeerPort))
	l.str(semconv.ClientAddressKey, a.ClientAddress)
	l.num(semconv.HTTPResponseStatusCodeKey, int64(a.Status))
	l.num(semconv.HTTPRequestBodySizeKey, a.RequestBytes)
	l.num(semconv.HTTPResponseBodySizeKey, a.ResponseBytes)
	l.num(semconv.HTTPRequestResendCountKey, int64(a.Resend))
}

// known gives the methods that the conventions list, and _OTHER for the rest, of
// which a client can invent any number.
func known(method string) string {
	switch method {
	case "", "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH":
		return method
	}
	return "_OTHER"
}

// failure gives the class of an error, "" for none: to a client each answer from
// 400 on is one, to a server only from 500 on.
func failure(a *trace.Attributes) string {
	least := 500
	if a.Kind == trace.Client {
		least = 400
	}
	switch {
	case a.Error != "":
		return a.Error
	case a.Status >= least:
		return strconv.Itoa(a.Status)
	case a.GRPC && grpcFailed(a):
		return strconv.Itoa(a.GRPCStatus)
	}
	return ""
}

// grpcFailed follows the conventions for gRPC: to a server some codes are the
// client's fault.
func grpcFailed(a *trace.Attributes) bool {
	if a.Kind == trace.Client {
		return a.GRPCStatus != 0
	}
	switch a.GRPCStatus {
	case 2, 4, 12, 13, 14, 15: // unknown, deadline exceeded, unimplemented, internal, unavailable, data loss
		return true
	}
	return false
}
