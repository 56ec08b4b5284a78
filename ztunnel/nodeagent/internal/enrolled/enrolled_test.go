package enrolled

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestWriteAndRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sub", "enrolled.json")
	for _, names := range [][]string{{"shop", "bank"}, nil, {"a"}} {
		if err := Write(path, names); err != nil {
			t.Fatal(err)
		}
		got, err := Read(path)
		if want := slices.Sorted(slices.Values(names)); err != nil || !slices.Equal(got, want) {
			t.Errorf("read %v, %v; want %v", got, err, want)
		}
	}
	if err := Write(path, []string{"a\nb"}); err == nil {
		t.Error("a name with a newline was taken")
	}
}

// Whatever is wrong with the file is an error, and not "nothing is enrolled".
func TestDamageIsAnError(t *testing.T) {
	path := filepath.Join(t.TempDir(), "enrolled.json")
	if _, err := Read(path); err == nil {
		t.Error("no file: no error")
	}
	if err := Write(path, []string{"shop", "bank"}); err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := range len(good) - 1 { // all but the newline at the end
		if _, err := parse(good[:i]); err == nil {
			t.Errorf("cut at %d: no error", i)
		}
	}
	for _, damage := range [][2]string{{"shop", "shoq"}, {`"bank",`, ""}, {`:1`, `:2`}, {"}", "}{}"}} {
		bad := strings.Replace(string(good), damage[0], damage[1], 1)
		if names, err := parse([]byte(bad)); err == nil {
			t.Errorf("%s: taken as %v", bad, names)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"format":1,"enrolledNamespaces":["a"],"sha256":"87428fc522803d31065e7bce3cf03fe475096631e5e07bbd7a0fde60c4cf25c7"}`))
	f.Add([]byte(`{"format":1,"enrolledNamespaces":null,"sha256":"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}`))
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		names, err := parse(b)
		if err != nil {
			return
		}
		path := filepath.Join(t.TempDir(), "f")
		if err := Write(path, names); err != nil {
			return // names that no namespace has
		}
		if again, err := Read(path); err != nil || !slices.Equal(again, slices.Sorted(slices.Values(names))) {
			t.Errorf("%v, then %v, %v", names, again, err)
		}
	})
}
