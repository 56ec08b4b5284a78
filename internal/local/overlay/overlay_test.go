package overlay_test

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ambit-mesh/ambit/internal/local/overlay"
	"github.com/ambit-mesh/ambit/internal/manifest"
)

func namespace(name, label string) manifest.Resource {
	return &corev1.Namespace{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Namespace"},
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"l": label}},
	}
}

func TestDirHoldsExactlyWhatWasWritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "overlay")
	d, err := overlay.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		objects []manifest.Resource
		want    []string
	}{
		{[]manifest.Resource{namespace("a", "1"), namespace("b", "1")}, []string{"a=1", "b=1"}},
		{[]manifest.Resource{namespace("a", "2"), namespace("b", "1")}, []string{"a=2", "b=1"}},
		{[]manifest.Resource{namespace("b", "1")}, []string{"b=1"}},
		{nil, nil},
	} {
		if err := d.Write(step.objects); err != nil {
			t.Fatal(err)
		}
		batch, err := manifest.Load(path)
		if err != nil || len(batch.Problems) > 0 {
			t.Fatal(err, batch.Problems)
		}
		var got []string
		for _, o := range batch.Upserts {
			got = append(got, o.GetName()+"="+o.GetLabels()["l"])
		}
		if !slices.Equal(got, step.want) {
			t.Errorf("the directory holds %v, want %v", got, step.want)
		}
	}
}

func TestUnchangedFilesAreLeftAlone(t *testing.T) {
	path := t.TempDir()
	d, err := overlay.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	inode := func() os.FileInfo {
		t.Helper()
		if err := d.Write([]manifest.Resource{namespace("a", "1")}); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(filepath.Join(path, "namespace__a.json"))
		if err != nil {
			t.Fatal(err)
		}
		return info
	}
	if first, second := inode(), inode(); !os.SameFile(first, second) {
		t.Error("a file was written again although its object is the same")
	}
}

func TestObjectWithoutKindIsRefused(t *testing.T) {
	d, err := overlay.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Write([]manifest.Resource{&corev1.Pod{}}); err == nil {
		t.Error("an object that no reader could read was written")
	}
}
