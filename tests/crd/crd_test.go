package crd_test

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/install"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	crdvalidation "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/validation"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/defaulting"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/listtype"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/pruning"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/json"
	"k8s.io/apimachinery/pkg/util/validation/field"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"sigs.k8s.io/yaml"

	"github.com/ambit-mesh/ambit/apis/mesh/v1alpha1"
	"github.com/ambit-mesh/ambit/controlplane/compile/policy"
	"github.com/ambit-mesh/ambit/controlplane/compile/traffic"
)

// definition is a CRD as an API server holds it.
type definition struct {
	structural *schema.Structural
	schema     validation.SchemaValidator
	rules      *cel.Validator
}

// load reads the CRDs and lets the API server's validation judge them first.
func load(t *testing.T) map[string]*definition {
	t.Helper()
	files, err := filepath.Glob("../../manifests/crds/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no CRDs: %v", err)
	}
	scheme := runtime.NewScheme()
	install.Install(scheme)
	out := map[string]*definition{}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		crd := &apiextensionsv1.CustomResourceDefinition{}
		if err := yaml.UnmarshalStrict(b, crd); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		scheme.Default(crd)
		internal := &apiextensions.CustomResourceDefinition{}
		if err := scheme.Convert(crd, internal, nil); err != nil {
			t.Fatal(err)
		}
		internal.Status.StoredVersions = []string{internal.Spec.Versions[0].Name}
		if errs := crdvalidation.ValidateCustomResourceDefinition(context.Background(), internal); len(errs) > 0 {
			t.Fatalf("%s: %v", file, errs.ToAggregate())
		}
		out[internal.Spec.Names.Kind] = define(t, internal)
	}
	return out
}

func define(t *testing.T, crd *apiextensions.CustomResourceDefinition) *definition {
	t.Helper()
	props := crd.Spec.Validation
	if props == nil {
		props = crd.Spec.Versions[0].Schema
	}
	structural, err := schema.NewStructural(props.OpenAPIV3Schema)
	if err != nil {
		t.Fatal(err)
	}
	validator, _, err := validation.NewSchemaValidator(props.OpenAPIV3Schema)
	if err != nil {
		t.Fatal(err)
	}
	return &definition{
		structural: structural, schema: validator,
		rules: cel.NewValidator(structural, true, celconfig.PerCallLimit),
	}
}

// admit does to an object what an API server does on creation: unknown fields
// are errors, as for a client that asks for strict validation.
func (d *definition) admit(object map[string]any) field.ErrorList {
	var errs field.ErrorList
	unknown := pruning.PruneWithOptions(object, d.structural, true, schema.UnknownFieldPathOptions{TrackUnknownFieldPaths: true})
	for _, path := range unknown {
		errs = append(errs, field.Forbidden(field.NewPath(path), "unknown field"))
	}
	defaulting.Default(object, d.structural)
	errs = append(errs, validation.ValidateCustomResource(nil, object, d.schema)...)
	errs = append(errs, listtype.ValidateListSetsAndMaps(nil, d.structural, object)...)
	for _, err := range errs {
		switch err.Type {
		case field.ErrorTypeNotSupported, field.ErrorTypeRequired, field.ErrorTypeTooLong, field.ErrorTypeTooMany, field.ErrorTypeTypeInvalid:
			// The API server does not put such objects to the rules either.
			return errs
		}
	}
	broken, _ := d.rules.Validate(context.Background(), nil, d.structural, object, nil, celconfig.RuntimeCELCostBudget)
	return append(errs, broken...)
}

var (
	wantComment = regexp.MustCompile(`(?m)^# want: (.*)$`)
	nameComment = regexp.MustCompile(`(?m)^# (.*)$`)
)

func TestObjects(t *testing.T) {
	definitions := load(t)
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, doc := range strings.Split(string(b), "\n---\n") {
			name := nameComment.FindStringSubmatch(doc)
			if name == nil {
				t.Fatalf("%s: a case without a comment:\n%s", file, doc)
			}
			t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml")+"/"+name[1], func(t *testing.T) {
				check(t, definitions, doc)
			})
		}
	}
}

func check(t *testing.T, definitions map[string]*definition, doc string) {
	object := map[string]any{}
	raw, err := yaml.YAMLToJSON([]byte(doc))
	if err != nil {
		t.Fatal(err)
	}
	// This decoder makes whole numbers integers, as an API server does.
	if err := json.Unmarshal(raw, &object); err != nil {
		t.Fatal(err)
	}
	kind, _ := object["kind"].(string)
	if definitions[kind] == nil {
		t.Fatalf("no CRD of kind %q", kind)
	}
	var want string
	if m := wantComment.FindStringSubmatch(doc); m != nil {
		want = m[1]
	}
	errs := definitions[kind].admit(object)
	switch {
	case want == "" && len(errs) > 0:
		t.Errorf("refused: %v", errs.ToAggregate())
	case want != "" && len(errs) == 0:
		t.Errorf("admitted, want an error with %q", want)
	case want != "" && !strings.Contains(errs.ToAggregate().Error(), want):
		t.Errorf("refused for another reason than %q: %v", want, errs.ToAggregate())
	}
	if strings.Contains(doc, "# crd-only:") {
		return
	}
	problems := validate(t, kind, doc)
	if (want != "") != (len(problems) > 0) {
		t.Errorf("the control plane says %v of a manifest from a directory", problems)
	}
}

// validate judges the object as it stands in a manifest, before any default.
func validate(t *testing.T, kind, doc string) []policy.Problem {
	t.Helper()
	if p := trafficPolicy(t, kind); p != nil {
		if err := yaml.UnmarshalStrict([]byte(doc), p); err != nil {
			t.Fatal(err)
		}
		return traffic.Validate(p)
	}
	if kind == v1alpha1.KindPeerAuthentication {
		p := &v1alpha1.PeerAuthentication{}
		if err := yaml.UnmarshalStrict([]byte(doc), p); err != nil {
			t.Fatal(err)
		}
		return policy.ValidatePeer(p)
	}
	p := &v1alpha1.AuthorizationPolicy{}
	if err := yaml.UnmarshalStrict([]byte(doc), p); err != nil {
		t.Fatal(err)
	}
	return policy.Validate(p)
}

// trafficPolicy gives an empty policy of a kind, or nil for one that is no traffic
// policy.
func trafficPolicy(t *testing.T, kind string) v1alpha1.TrafficPolicy {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	obj, err := scheme.New(v1alpha1.GroupVersion().WithKind(kind))
	if err != nil {
		t.Fatal(err)
	}
	p, _ := obj.(v1alpha1.TrafficPolicy)
	return p
}

// What kubectl shows, by which people find policies, and what other tools look
// for.
func TestPresentation(t *testing.T) {
	files, err := filepath.Glob("../../manifests/crds/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		crd := &apiextensionsv1.CustomResourceDefinition{}
		if err := yaml.UnmarshalStrict(b, crd); err != nil {
			t.Fatal(err)
		}
		policy := crd.Spec.Names.Kind != "ExternalService" // the one kind that is not attached to anything
		if label := crd.Labels["gateway.networking.k8s.io/policy"]; policy && label != "Inherited" && label != "Direct" {
			t.Errorf("%s: policy label %q", crd.Name, label)
		}
		if got := crd.Spec.Names.Categories; len(got) != 1 || got[0] != "ambit" || len(crd.Spec.Names.ShortNames) == 0 {
			t.Errorf("%s: categories %v, short names %v", crd.Name, got, crd.Spec.Names.ShortNames)
		}
		var columns []string
		for _, c := range crd.Spec.Versions[0].AdditionalPrinterColumns {
			if c.Priority == 0 {
				columns = append(columns, c.Name)
			}
		}
		if got := strings.Join(columns, " "); policy && !strings.HasSuffix(got, "Targets Accepted Age") || !strings.HasSuffix(got, "Accepted Age") {
			t.Errorf("%s: columns %s", crd.Name, got)
		}
	}
}
