package main

import "fmt"

func apiServerArgs(o *options) ([]string, error) {
	args := []string{
		"--etcd-servers=unix://" + o.path(etcdSocket),
		"--bind-address=" + o.address(),
		"--advertise-address=" + o.address(),
		fmt.Sprintf("--secure-port=%d", o.port),
		"--cert-dir=" + o.pki(""),
		"--tls-cert-file=" + o.pki("apiserver.crt"),
		"--tls-private-key-file=" + o.pki("apiserver.key"),
		"--client-ca-file=" + o.pki("ca.crt"),
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-signing-key-file=" + o.pki("service-accounts.key"),
		"--service-account-key-file=" + o.pki("service-accounts.pub"),
		"--requestheader-client-ca-file=" + o.pki("front-proxy-ca.crt"),
		"--requestheader-allowed-names=front-proxy-client",
		"--requestheader-username-headers=X-Remote-User",
		"--requestheader-group-headers=X-Remote-Group",
		"--requestheader-extra-headers-prefix=X-Remote-Extra-",
		"--proxy-client-cert-file=" + o.pki("front-proxy.crt"),
		"--proxy-client-key-file=" + o.pki("front-proxy.key"),
		"--service-cluster-ip-range=" + serviceCIDR,
		"--allow-privileged=true",
		"--anonymous-auth=false",
		"--profiling=false",
	}
	if o.nodeName == "" {
		// Nobody can reach the `kubernetes` Service without a node, so nobody keeps its endpoints.
		args = append(args, "--authorization-mode=RBAC", "--endpoint-reconciler-type=none")
	} else {
		args = append(args,
			"--authorization-mode=Node,RBAC",
			"--enable-admission-plugins=NodeRestriction",
			"--endpoint-reconciler-type=lease",
			"--kubelet-preferred-address-types=InternalIP",
			"--kubelet-certificate-authority="+o.pki("ca.crt"),
			"--kubelet-client-certificate="+o.pki("kubelet-client.crt"),
			"--kubelet-client-key="+o.pki("kubelet-client.key"),
		)
	}
	if o.audit {
		audit, err := auditArgs(o)
		if err != nil {
			return nil, err
		}
		args = append(args, audit...)
	}
	return append(args, o.apiServerArgs...), nil
}

func controllerManagerArgs(o *options) []string {
	config := o.kubeconfig(controllerManagerName)
	args := []string{
		"--kubeconfig=" + config,
		"--authentication-kubeconfig=" + config,
		"--authorization-kubeconfig=" + config,
		"--secure-port=0",
		"--cert-dir=" + o.pki(""),
		"--leader-elect=false",
		"--profiling=false",
		"--controllers=" + o.controllers,
		"--root-ca-file=" + o.pki("ca.crt"),
		"--service-account-private-key-file=" + o.pki("service-accounts.key"),
		// Without its own account for each controller, RBAC refuses garbage collection
		// and the deletion of namespaces, and all that is seen of it is that nothing happens.
		"--use-service-account-credentials=true",
	}
	if o.nodeName != "" {
		// With the default of 20 requests a second all the controllers start 4 s later.
		args = append(args, "--kube-api-qps=500", "--kube-api-burst=1000")
	}
	return args
}
