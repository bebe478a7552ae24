package main

import "os"

// auditPolicy keeps one line for each finished request of interest: who, verb, object, status code.
// Logged are the objects whose writes tests count, whoever touches them, and everything that is done
// with a ServiceAccount's token (that is: by the operator), so that a missing RBAC rule shows as a 403.
// Writes of the operator's own kinds and of its orphan ledger stand there with their bodies: whoever judges a run
// must see which status was durable when. Never a Secret's.
// The first rule that matches decides; the cluster's own ServiceAccounts would drown the rest.
const auditPolicy = `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived, ResponseStarted]
omitManagedFields: true
rules:
- level: Request
  verbs: [create, update, patch, delete, deletecollection]
  resources:
  - group: gemini-operator.io
- level: Request
  verbs: [create, update, patch]
  namespaces: [gemini-operator-system]
  resources:
  - group: ""
    resources: [configmaps]
- level: Metadata
  resources:
  - group: gemini-operator.io
  - group: ""
    resources: [configmaps, secrets, events]
  - group: events.k8s.io
    resources: [events]
  - group: coordination.k8s.io
    resources: [leases]
- level: None
  userGroups: ["system:serviceaccounts:kube-system"]
- level: Metadata
  userGroups: ["system:serviceaccounts"]
- level: None
`

// auditArgs writes the policy and returns the API server's flags for it.
func auditArgs(o *options) ([]string, error) {
	if err := os.WriteFile(o.path("audit-policy.yaml"), []byte(auditPolicy), 0o600); err != nil {
		return nil, err
	}
	return []string{
		"--audit-policy-file=" + o.path("audit-policy.yaml"),
		"--audit-log-path=" + o.path("audit.log"),
		"--audit-log-maxsize=0", // never rotate: a reader follows one file
	}, nil
}
