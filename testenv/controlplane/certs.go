package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// identity is a key with its certificate, both also as PEM.
type identity struct {
	certificate     *x509.Certificate
	key             *ecdsa.PrivateKey
	certPEM, keyPEM []byte
}

// subject says what a certificate is for. Without a usage it is a certificate authority of its own.
type subject struct {
	name   string
	groups []string
	usage  x509.ExtKeyUsage
	dns    []string
	ips    []net.IP
}

const authority = x509.ExtKeyUsageAny // the zero value: "no particular usage"

func issue(s subject, signer *identity) (*identity, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: s.name, Organization: s.groups},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().AddDate(1, 0, 0),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		BasicConstraintsValid: true,
		DNSNames:              s.dns,
		IPAddresses:           s.ips,
	}
	parent, parentKey := template, key
	if s.usage == authority {
		template.IsCA = true
		template.KeyUsage |= x509.KeyUsageCertSign
	} else {
		template.ExtKeyUsage = []x509.ExtKeyUsage{s.usage}
		parent, parentKey = signer.certificate, signer.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, parentKey)
	if err != nil {
		return nil, fmt.Errorf("certificate of %s: %w", s.name, err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, err
	}
	return &identity{
		certificate: certificate,
		key:         key,
		certPEM:     pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		keyPEM:      pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER}),
	}, nil
}

// writePKI makes all throw-away keys and certificates below DIR/pki, and a kubeconfig for each client.
func writePKI(o *options) error {
	if err := os.MkdirAll(o.pki(""), 0o700); err != nil {
		return err
	}
	ca, err := issue(subject{name: "cluster-ca"}, nil)
	if err != nil {
		return err
	}
	frontProxyCA, err := issue(subject{name: "front-proxy-ca"}, nil)
	if err != nil {
		return err
	}
	tokens, err := issue(subject{name: "service-account-tokens"}, nil)
	if err != nil {
		return err
	}
	publicDER, err := x509.MarshalPKIXPublicKey(&tokens.key.PublicKey)
	if err != nil {
		return err
	}
	public := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: publicDER})
	for name, content := range map[string][]byte{
		"ca.crt": ca.certPEM, "front-proxy-ca.crt": frontProxyCA.certPEM,
		"service-accounts.key": tokens.keyPEM, "service-accounts.pub": public,
	} {
		if err := os.WriteFile(o.pki(name), content, 0o600); err != nil {
			return err
		}
	}
	for name, s := range servingAndProxySubjects(o) {
		signer := ca
		if name == "front-proxy" {
			signer = frontProxyCA
		}
		id, err := issue(s, signer)
		if err != nil {
			return err
		}
		if err := os.WriteFile(o.pki(name+".crt"), id.certPEM, 0o600); err != nil {
			return err
		}
		if err := os.WriteFile(o.pki(name+".key"), id.keyPEM, 0o600); err != nil {
			return err
		}
	}
	for name, s := range clientSubjects(o) {
		s.usage = x509.ExtKeyUsageClientAuth
		id, err := issue(s, ca)
		if err != nil {
			return err
		}
		file := o.kubeconfig(name)
		if name == adminName {
			file = o.path("kubeconfig")
		}
		if err := writeKubeconfig(file, o.server(), name, ca, id); err != nil {
			return err
		}
	}
	return nil
}

// adminName is the client whose kubeconfig is the result: DIR/kubeconfig.
const adminName = "admin"

// servingAndProxySubjects are the certificates that components are given as files DIR/pki/NAME.{crt,key}.
func servingAndProxySubjects(o *options) map[string]subject {
	subjects := map[string]subject{
		"apiserver": {
			name:  "kube-apiserver",
			usage: x509.ExtKeyUsageServerAuth,
			dns: []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc",
				"kubernetes.default.svc." + clusterDomain},
			ips: []net.IP{net.ParseIP("127.0.0.1"), net.ParseIP(firstServiceIP), net.ParseIP(o.address())},
		},
		"front-proxy": {name: "front-proxy-client", usage: x509.ExtKeyUsageClientAuth},
	}
	if o.nodeName != "" {
		subjects["kubelet"] = subject{
			name:  "system:node:" + o.nodeName,
			usage: x509.ExtKeyUsageServerAuth,
			dns:   []string{o.nodeName},
			ips:   []net.IP{net.ParseIP(o.nodeIP)},
		}
		// What the API server shows to the kubelet for logs, exec and port-forward.
		subjects["kubelet-client"] = subject{
			name:   "kube-apiserver-kubelet-client",
			groups: []string{"system:masters"},
			usage:  x509.ExtKeyUsageClientAuth,
		}
	}
	return subjects
}

// clientSubjects are the users with a kubeconfig of their own; their names carry the upstream RBAC roles.
func clientSubjects(o *options) map[string]subject {
	subjects := map[string]subject{
		adminName:             {name: "admin", groups: []string{"system:masters"}},
		controllerManagerName: {name: "system:kube-controller-manager"},
	}
	if o.nodeName != "" {
		subjects[schedulerName] = subject{name: "system:kube-scheduler"}
		subjects[proxyName] = subject{name: "system:kube-proxy"}
		subjects[kubeletName] = subject{name: "system:node:" + o.nodeName, groups: []string{"system:nodes"}}
		// No upstream role covers our DNS; in a cluster that lives for minutes a role of its own is not worth an API call at the start.
		subjects[dnsName] = subject{name: "cluster-dns", groups: []string{"system:masters"}}
	}
	return subjects
}

func writeKubeconfig(file, server, user string, ca, id *identity) error {
	const cluster = "testenv"
	config := clientcmdapi.NewConfig()
	config.Clusters[cluster] = &clientcmdapi.Cluster{Server: server, CertificateAuthorityData: ca.certPEM}
	config.AuthInfos[user] = &clientcmdapi.AuthInfo{ClientCertificateData: id.certPEM, ClientKeyData: id.keyPEM}
	config.Contexts[cluster] = &clientcmdapi.Context{Cluster: cluster, AuthInfo: user}
	config.CurrentContext = cluster
	return clientcmd.WriteToFile(*config, file)
}
