package netns_test

import "encoding/json"

// clusterIPs gives the virtual addresses of a service.
func (m *mesh) clusterIPs(ns, name string) []string {
	m.t.Helper()
	out, err := m.command(m.t.Context(), "get", "services", "-n", ns, "-o", "json").Output()
	if err != nil {
		m.t.Fatalf("get services: %v", err)
	}
	var list struct {
		Items []struct {
			Metadata struct {
				Name string `json:"name"`
			} `json:"metadata"`
			Spec struct {
				ClusterIPs []string `json:"clusterIPs"`
			} `json:"spec"`
		} `json:"items"`
	}
	if err := json.Unmarshal(out, &list); err != nil {
		m.t.Fatalf("get services: %v\n%s", err, out)
	}
	for _, s := range list.Items {
		if s.Metadata.Name == name {
			return s.Spec.ClusterIPs
		}
	}
	m.t.Fatalf("no service %s/%s in %s", ns, name, out)
	return nil
}
