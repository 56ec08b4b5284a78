package conformance

import (
	"os"
	"testing"

	"k8s.io/apimachinery/pkg/util/sets"
	"sigs.k8s.io/gateway-api/conformance"
	confv1 "sigs.k8s.io/gateway-api/conformance/apis/v1"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"
	"sigs.k8s.io/gateway-api/pkg/features"
)

// TestConformance runs every mesh test, with the defaults of the suite's time-outs. Flags of the suite given after -args
// override what is set here only where it says so: profiles and features are what Ambit claims.
func TestConformance(t *testing.T) {
	if os.Getenv("KUBECONFIG") == "" {
		t.Skip("no cluster: run it by make conformance")
	}
	opts := conformance.DefaultOptions(t)
	opts.ConformanceProfiles = []suite.ConformanceProfileName{suite.MeshHTTPConformanceProfileName, suite.MeshGRPCConformanceProfileName}
	opts.SupportedFeatures = sets.List(claimed())
	opts.Implementation = confv1.Implementation{
		Organization: "ambit-mesh", Project: "ambit", URL: "https://github.com/ambit-mesh/ambit",
		Version: version(), Contact: []string{"https://github.com/ambit-mesh/ambit/issues"},
	}
	if opts.NamespaceLabels == nil {
		// The suite's namespaces are enrolled as a user would enrol them.
		opts.NamespaceLabels = map[string]string{"ambit-mesh.io/dataplane-mode": "ambient", "ambit-mesh.io/use-waypoint": "waypoint"}
	}
	conformance.RunConformanceWithOptions(t, opts)
}

// claimed are the features of the profiles' cores, all extended features of meshes, and those that only tests outside of the
// profiles ask for, so that these run too.
func claimed() sets.Set[features.FeatureName] {
	all := sets.New(features.SupportMesh, features.SupportHTTPRoute, features.SupportGRPCRoute)
	for f := range features.MeshCoreFeatures {
		all.Insert(f.Name)
	}
	for f := range features.MeshExtendedFeatures {
		all.Insert(f.Name)
	}
	return all.Insert(
		features.SupportHTTPRouteParentRefPort, features.SupportHTTPRouteResponseHeaderModification,
		features.SupportHTTPRoute303RedirectStatusCode, features.SupportHTTPRoute307RedirectStatusCode, features.SupportHTTPRoute308RedirectStatusCode,
	)
}

// version is what the report names.
func version() string {
	if v := os.Getenv("AMBIT_VERSION"); v != "" {
		return v
	}
	return "main"
}
