package controlplane

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"k8s.io/apimachinery/pkg/types"

	"github.com/ambit-mesh/ambit/controlplane/compile"
)

func capturedPod(i int) compile.CapturedPod {
	return compile.CapturedPod{UID: types.UID(fmt.Sprintf("uid-%03d", i)), Node: fmt.Sprintf("n%d", i%7)}
}

// reopened gives what a successor would read.
func reopened(t testing.TB, path string) (pods []compile.CapturedPod, torn error) {
	t.Helper()
	j, torn, err := openCaptured(path)
	if err != nil {
		t.Fatal(err)
	}
	return j.pods, torn
}

func TestJournalOfCapturedPodsHoldsWhatWasSaved(t *testing.T) {
	path := filepath.Join(t.TempDir(), capturedName)
	j, _, err := openCaptured(path)
	if err != nil {
		t.Fatal(err)
	}
	random := rand.New(rand.NewPCG(1, 2))
	have := make(map[int]bool)
	largest := int64(0)
	for range 300 {
		for range 10 {
			have[random.IntN(100)] = random.IntN(2) == 0
		}
		var want []compile.CapturedPod
		for i := range 100 {
			if have[i] {
				want = append(want, capturedPod(i))
			}
		}
		if err := j.save(want); err != nil {
			t.Fatal(err)
		}
		if got, torn := reopened(t, path); torn != nil || !slices.Equal(got, want) {
			t.Fatalf("saved %v, a successor reads %v, %v", want, got, torn)
		}
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		largest = max(largest, info.Size())
	}
	// Some 1,200 changes of 40 bytes, of 1,500: it was written anew.
	if j.changes > 1300 || largest > 64<<10 {
		t.Errorf("the journal of at most 100 pods grew to %d bytes", largest)
	}
}

// A crash while a change is written leaves any part of its line.
func TestTornChangeIsLeftOutAndTold(t *testing.T) {
	path := filepath.Join(t.TempDir(), capturedName)
	j, _, err := openCaptured(path)
	if err != nil {
		t.Fatal(err)
	}
	before := []compile.CapturedPod{capturedPod(1), capturedPod(2)}
	after := []compile.CapturedPod{capturedPod(2), capturedPod(3)}
	if err := j.save(before); err != nil {
		t.Fatal(err)
	}
	first, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := j.save(after); err != nil {
		t.Fatal(err)
	}
	all, err := os.ReadFile(path)
	if err != nil || !bytes.HasPrefix(all, first) {
		t.Fatalf("nothing was appended, %v", err)
	}
	for n := len(first) + 1; n < len(all); n++ {
		for name, tail := range map[string][]byte{"cut": all[len(first):n], "zeros": make([]byte, n-len(first))} {
			if err := os.WriteFile(path, append(bytes.Clone(first), tail...), 0o600); err != nil {
				t.Fatal(err)
			}
			got, torn := reopened(t, path)
			if torn == nil || !slices.Equal(got, before) {
				t.Fatalf("%s at %d: %v, %v", name, n, got, torn)
			}
			// And it goes on from there.
			again, _, err := openCaptured(path)
			if err == nil {
				err = again.save(after)
			}
			if err != nil {
				t.Fatal(err)
			}
			if got, torn := reopened(t, path); torn != nil || !slices.Equal(got, after) {
				t.Fatalf("%s at %d, and then: %v, %v", name, n, got, torn)
			}
		}
	}
}

func TestDamageInTheMiddleIsAnError(t *testing.T) {
	path := filepath.Join(t.TempDir(), capturedName)
	j, _, err := openCaptured(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		if err := j.save([]compile.CapturedPod{capturedPod(i)}); err != nil {
			t.Fatal(err)
		}
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := range bytes.LastIndexByte(data[:len(data)-1], '\n') {
		bad := bytes.Clone(data)
		bad[i] ^= 1
		if _, _, torn, err := parseCaptured(bad); err == nil {
			t.Fatalf("byte %d changed: no error, torn %v", i, torn)
		}
	}
}

// One pod of ten thousand is captured, and released again.
func BenchmarkSaveCaptured(b *testing.B) {
	j, _, err := openCaptured(filepath.Join(b.TempDir(), capturedName))
	if err != nil {
		b.Fatal(err)
	}
	var pods []compile.CapturedPod
	for i := range 10_000 {
		pods = append(pods, compile.CapturedPod{UID: types.UID(fmt.Sprintf("uid-%05d", i)), Node: "n1"})
	}
	for i := 0; b.Loop(); i++ {
		if err := j.save(pods[:len(pods)-i%2]); err != nil {
			b.Fatal(err)
		}
	}
}

func FuzzParseCaptured(f *testing.F) {
	line, err := capturedBatch{Captured: []compile.CapturedPod{capturedPod(1)}, Released: []types.UID{"uid-002"}}.line()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(line)
	f.Add(append(bytes.Clone(line), line[:20]...))
	f.Add([]byte("00000000 \n"))
	f.Add([]byte("{\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		pods, _, torn, err := parseCaptured(data)
		if err != nil || torn != nil {
			return
		}
		// What was read whole may be appended to, and is read as before.
		again, _, torn, err := parseCaptured(append(bytes.Clone(data), line[:len(line)-1]...))
		if len(data) > 0 && (err != nil || torn == nil || len(again) != len(pods)) {
			t.Fatalf("with a torn line behind it: %d pods instead of %d, %v, %v", len(again), len(pods), torn, err)
		}
	})
}
