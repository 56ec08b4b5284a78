package l7

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
)

type object = map[string]any

// envoyConfig is one way to have Envoy do the job.
type envoyConfig struct {
	dir       string // of the certificates
	host      string // that it listens on
	rules     int
	accessLog string // "" for none
}

// write writes listeners and clusters as a configuration.
func (e *envoyConfig) write(name string, listeners, clusters []object) (string, error) {
	text, err := json.Marshal(object{
		"admin":                object{"address": socket(e.host, adminPort)},
		"bootstrap_extensions": []object{{"name": "internal", "typed_config": object{"@type": typePrefix + "bootstrap.internal_listener.v3.InternalListener"}}},
		"static_resources":     object{"listeners": listeners, "clusters": clusters},
	})
	path := filepath.Join(e.dir, name+".json")
	return path, errors.Join(err, os.WriteFile(path, text, 0o644))
}

// plain is Envoy with a mutual TLS connection for each connection, in and out.
func (e *envoyConfig) plain() (string, error) {
	var clusters []object
	for i, name := range backendNames {
		host := backendHosts[i].String()
		one, two := cluster(name+"-1", socket(host, secureHTTP1), http1Only), cluster(name+"-2", socket(host, secureHTTP2), http2Only)
		one["transport_socket"], two["transport_socket"] = e.upstreamTLS("http/1.1", name), e.upstreamTLS("h2", name)
		clusters = append(clusters, one, two)
	}
	var listeners []object
	for _, l := range []struct {
		suffix, alpn, codec string
		port                int
	}{{"1", "http/1.1", "HTTP1", envoyHTTP1}, {"2", "h2", "HTTP2", envoyHTTP2}} {
		listeners = append(listeners, object{
			"name": "in" + l.suffix, "address": socket(e.host, l.port),
			"filter_chains": []object{{"filters": []object{e.manager(l.suffix, l.codec)}, "transport_socket": e.downstreamTLS(l.alpn)}},
		})
	}
	return e.write("envoy", listeners, clusters)
}

// hbone is Envoy as waypoints of Istio have it: tunnels end in a listener that
// hands what is in them to internal ones, and begin in another.
func (e *envoyConfig) hbone() (string, error) {
	var hosts, listeners, clusters []object
	for _, l := range []struct {
		suffix, codec string
		port          int
		protocol      object
	}{{"1", "HTTP1", 80, http1Only}, {"2", "HTTP2", 81, http2Only}} {
		inner := "inner" + l.suffix
		hosts = append(hosts, object{"name": inner, "domains": []string{fmt.Sprintf("%s:%d", serviceVIP, l.port)}, "routes": []object{{
			"match": object{"connect_matcher": object{}},
			"route": object{"cluster": inner, "timeout": "0s", "upgrade_configs": []object{{"upgrade_type": "CONNECT", "connect_config": object{}}}},
		}}})
		clusters = append(clusters, cluster(inner, internal(inner), nil))
		listeners = append(listeners, object{"name": inner, "internal_listener": object{}, "filter_chains": []object{{"filters": []object{e.manager(l.suffix, l.codec)}}}})
		for i, name := range backendNames {
			out := name + "-" + l.suffix
			clusters = append(clusters, cluster(out, internal("out-"+out), l.protocol))
			listeners = append(listeners, object{"name": "out-" + out, "internal_listener": object{}, "filter_chains": []object{{"filters": []object{{
				"name": "tunnel", "typed_config": object{
					"@type": typePrefix + "filters.network.tcp_proxy.v3.TcpProxy", "stat_prefix": "out", "cluster": "tunnel-" + name,
					"tunneling_config": object{"hostname": fmt.Sprintf("%s:%d", backendHosts[i], plainHTTP1+int(l.suffix[0]-'1'))},
				},
			}}}}})
		}
	}
	for i, name := range backendNames {
		c := cluster("tunnel-"+name, socket(backendHosts[i].String(), hbonePort), http2Only)
		c["transport_socket"] = e.upstreamTLS("h2", name)
		clusters = append(clusters, c)
	}
	terminate := object{
		"@type": typePrefix + "filters.network.http_connection_manager.v3.HttpConnectionManager", "stat_prefix": "tunnel", "codec_type": "HTTP2",
		"http2_protocol_options": object{"allow_connect": true}, "upgrade_configs": []object{{"upgrade_type": "CONNECT"}},
		"http_filters": []object{router}, "route_config": object{"name": "tunnels", "virtual_hosts": hosts},
	}
	listeners = append(listeners, object{
		"name": "in", "address": socket(e.host, hbonePort),
		"filter_chains": []object{{"filters": []object{{"name": "http", "typed_config": terminate}}, "transport_socket": e.downstreamTLS("h2")}},
	})
	return e.write("envoy-hbone", listeners, clusters)
}

func internal(listener string) object {
	return object{"envoy_internal_address": object{"server_listener_name": listener}}
}

func socket(host string, port int) object {
	return object{"socket_address": object{"address": host, "port_value": port}}
}

const (
	typePrefix   = "type.googleapis.com/envoy.extensions."
	typeUpstream = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
)

// tls is mutual TLS 1.3 as the waypoint has it.
func (e *envoyConfig) tls(alpn, peer string) object {
	validation := object{"trusted_ca": object{"filename": filepath.Join(e.dir, "root.pem")}}
	if peer != "" {
		validation["match_typed_subject_alt_names"] = []object{{"san_type": "URI", "matcher": object{"exact": peer}}}
	}
	return object{
		"alpn_protocols":     []string{alpn},
		"tls_params":         object{"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
		"tls_certificates":   []object{{"certificate_chain": object{"filename": filepath.Join(e.dir, "cert.pem")}, "private_key": object{"filename": filepath.Join(e.dir, "key.pem")}}},
		"validation_context": validation,
	}
}

func (e *envoyConfig) upstreamTLS(alpn, peer string) object {
	return object{"name": "tls", "typed_config": object{
		"@type": typePrefix + "transport_sockets.tls.v3.UpstreamTlsContext", "common_tls_context": e.tls(alpn, account(peer).String()),
	}}
}

func (e *envoyConfig) downstreamTLS(alpn string) object {
	return object{"name": "tls", "typed_config": object{
		"@type": typePrefix + "transport_sockets.tls.v3.DownstreamTlsContext", "require_client_certificate": true,
		"disable_stateless_session_resumption": true, "common_tls_context": e.tls(alpn, ""),
	}}
}

var (
	http1Only = object{"http_protocol_options": object{}}
	http2Only = object{"http2_protocol_options": object{}}
	router    = object{"name": "router", "typed_config": object{"@type": typePrefix + "filters.http.router.v3.Router"}}
)

// cluster of one endpoint; protocol is nil for raw bytes.
func cluster(name string, address, protocol object) object {
	c := object{
		"name": name, "type": "STATIC", "lb_policy": "LEAST_REQUEST", "connect_timeout": "5s",
		"load_assignment": object{"cluster_name": name, "endpoints": []object{{"lb_endpoints": []object{{"endpoint": object{"address": address}}}}}},
		// As many as the waypoint allows by itself; the default of 1024 is for others.
		"circuit_breakers": object{"thresholds": []object{{"max_connections": 16384, "max_requests": 16384, "max_pending_requests": 16384}}},
	}
	if protocol != nil {
		c["typed_extension_protocol_options"] = object{typeUpstream: object{"@type": "type.googleapis.com/" + typeUpstream, "explicit_http_config": protocol}}
	}
	return c
}

// manager does what the waypoint does between its tunnels.
func (e *envoyConfig) manager(suffix, codec string) object {
	manager := object{
		"@type": typePrefix + "filters.network.http_connection_manager.v3.HttpConnectionManager", "stat_prefix": "in", "codec_type": codec, "normalize_path": true,
		"http_filters": []object{router},
		"route_config": object{"name": "routes", "virtual_hosts": []object{{"name": "web", "domains": []string{"*"}, "routes": envoyRoutes(suffix, e.rules)}}},
	}
	if e.accessLog != "" {
		manager["access_log"] = []object{{"name": "file", "typed_config": object{
			"@type": typePrefix + "access_loggers.file.v3.FileAccessLog", "path": e.accessLog, "log_format": object{"json_format": envoyLine},
		}}}
	}
	return object{"name": "http", "typed_config": manager}
}

// envoyLine has the same content as a line of the waypoint's access log.
var envoyLine = object{
	"time": "%START_TIME%", "src.addr": "%DOWNSTREAM_REMOTE_ADDRESS%", "src.identity": "%DOWNSTREAM_PEER_URI_SAN%", "dst.addr": "%UPSTREAM_HOST%",
	"dst.identity": "%UPSTREAM_PEER_URI_SAN%", "method": "%REQ(:METHOD)%", "path": "%REQ(:PATH)%", "host": "%REQ(:AUTHORITY)%", "status": "%RESPONSE_CODE%",
	"route": "%ROUTE_NAME%", "backend": "%UPSTREAM_CLUSTER%", "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%", "bytes_sent": "%BYTES_SENT%", "bytes_recv": "%BYTES_RECEIVED%",
	"duration": "%DURATION%", "response_flags": "%RESPONSE_FLAGS%", "trace_id": "%REQ(X-REQUEST-ID)%",
}

func envoyRoutes(suffix string, rules int) []object {
	routes := make([]object, rules)
	for i := range routes {
		routes[i] = object{
			"name": "app/web/" + strconv.Itoa(i),
			"match": object{
				"path_separated_prefix": prefix(i),
				"headers":               []object{{"name": matchHeader, "string_match": object{"exact": matchValue}}},
			},
			"route": object{
				"timeout": "0s", // the waypoint has none unless a rule says so
				"weighted_clusters": object{"clusters": []object{
					{"name": backendNames[0] + "-" + suffix, "weight": weightFirst}, {"name": backendNames[1] + "-" + suffix, "weight": weightRest},
				}},
				"retry_policy": object{"retry_on": "connect-failure,refused-stream,reset,retriable-status-codes", "retriable_status_codes": []int{503}, "num_retries": retries},
			},
		}
	}
	return routes
}
