// Package auth stands in for github.com/containous/go-http-auth, which Traefik puts in the
// place of abbot's. Its basicAuth and digestAuth middlewares compile against this one and
// refuse every request: nothing is ever let in by it.
package auth

import "net/http"

// SecretProvider gives a user's secret.
type SecretProvider func(user, realm string) string

// CheckSecret never matches.
func CheckSecret(string, string) bool { return false }

func refuse(w http.ResponseWriter) {
	http.Error(w, http.StatusText(http.StatusUnauthorized), http.StatusUnauthorized)
}

// BasicAuth refuses.
type BasicAuth struct {
	Realm   string
	Secrets SecretProvider
}

// RequireAuth refuses.
func (*BasicAuth) RequireAuth(w http.ResponseWriter, _ *http.Request) { refuse(w) }

// DigestAuth refuses.
type DigestAuth struct{}

// NewDigestAuthenticator makes one that refuses.
func NewDigestAuthenticator(string, SecretProvider) *DigestAuth { return &DigestAuth{} }

// CheckAuth never matches.
func (*DigestAuth) CheckAuth(*http.Request) (string, *string) { return "", nil }

// RequireAuth refuses.
func (*DigestAuth) RequireAuth(w http.ResponseWriter, _ *http.Request) { refuse(w) }

// RequireAuthStale refuses.
func (*DigestAuth) RequireAuthStale(w http.ResponseWriter, _ *http.Request) { refuse(w) }

// DigestAuthParams finds none.
func DigestAuthParams(string) map[string]string { return nil }
