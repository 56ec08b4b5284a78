package cluster

import (
	"context"
	"fmt"
	"io/fs"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"

	"github.com/ambit-mesh/ambit/controlplane/internal/ca"
)

// FieldManager owns what the control plane writes.
const FieldManager = "ambit-mesh.io/controlplane"

const (
	// SecretName is the Secret of the authority, in the root namespace.
	SecretName = "ambit-ca"
	// SecretKey is what of it holds the record.
	SecretKey = "authority.json"

	requestTimeout = 10 * time.Second
)

// Secret keeps the authority's record in a Secret.
type Secret struct {
	client    corev1client.SecretInterface
	namespace string
	last      *corev1.Secret // as Load or Save knew it; nil if there is none
}

// NewSecret gives the store of a namespace.
func NewSecret(client corev1client.SecretsGetter, namespace string) *Secret {
	return &Secret{client: client.Secrets(namespace), namespace: namespace}
}

// Load reads the Secret.
func (s *Secret) Load(ctx context.Context) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	secret, err := s.client.Get(ctx, SecretName, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		s.last = nil
		return nil, fmt.Errorf("%s: %w", s.Name(), fs.ErrNotExist)
	case err != nil:
		return nil, fmt.Errorf("%s: %w", s.Name(), err)
	}
	s.last = secret
	record, ok := secret.Data[SecretKey]
	if !ok || len(record) == 0 {
		return nil, fmt.Errorf("%s is missing or empty, though the Secret is there; %s", s.Name(), s.Remedy())
	}
	return record, nil
}

// Save creates the Secret, or replaces it in the version that is known.
func (s *Secret) Save(ctx context.Context, record []byte) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	var next *corev1.Secret
	var err error
	if s.last == nil {
		next, err = s.client.Create(ctx, &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Name: SecretName, Namespace: s.namespace, Labels: map[string]string{"app.kubernetes.io/managed-by": "ambit-controlplane"}},
			Type:       corev1.SecretTypeOpaque, Data: map[string][]byte{SecretKey: record},
		}, metav1.CreateOptions{FieldManager: FieldManager})
	} else {
		secret := s.last.DeepCopy()
		secret.Data[SecretKey] = record
		next, err = s.client.Update(ctx, secret, metav1.UpdateOptions{FieldManager: FieldManager})
	}
	switch {
	case apierrors.IsConflict(err), apierrors.IsAlreadyExists(err), s.last != nil && apierrors.IsNotFound(err):
		return fmt.Errorf("%s: %w", s.Name(), ca.ErrConflict)
	case err != nil:
		return fmt.Errorf("%s: %w", s.Name(), err)
	}
	s.last = next
	return nil
}

// Name says which Secret and key it is.
func (s *Secret) Name() string {
	return "Secret " + s.namespace + "/" + SecretName + ", key " + SecretKey
}

// Remedy says what to do when the content is not usable.
func (s *Secret) Remedy() string {
	return "restore the Secret from a backup, or delete it (kubectl -n " + s.namespace + " delete secret " + SecretName +
		") and restart the control plane to begin with a new root: all workloads then get new certificates"
}

var _ ca.Store = (*Secret)(nil)
