package main

import (
	"context"
	"fmt"
	"os"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// Made by testenv/node, which starts containerd and the namespaces before us.
const (
	containerdSocket = "unix:///run/containerd/containerd.sock"
	resolvConf       = "/run/node/resolv.conf"
)

// kubeletConfig. Where it differs from a kubelet's defaults:
//   - cgroup v1 is refused from 1.35 on unless failCgroupV1 is false;
//   - no oom_score_adj, no iptables chains: neither is allowed or needed in our namespaces;
//   - eviction and image collection look at the disk of the whole machine and would evict
//     the test's pods because somebody else's disk is full;
//   - high request limits, short periods: tests wait for what the kubelet reports.
const kubeletConfig = `apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
containerRuntimeEndpoint: @CONTAINERD@
address: @IP@
healthzPort: 0
tlsCertFile: @DIR@/pki/kubelet.crt
tlsPrivateKeyFile: @DIR@/pki/kubelet.key
rotateCertificates: false
authentication:
  anonymous: {enabled: false}
  webhook: {enabled: true}
  x509: {clientCAFile: @DIR@/pki/ca.crt}
authorization: {mode: Webhook}
clusterDNS: ["@IP@"]
clusterDomain: @DOMAIN@
resolvConf: @RESOLV@
podLogsDir: @DIR@/pod-logs
volumePluginDir: @DIR@/volume-plugins
failCgroupV1: false
failSwapOn: false
cgroupDriver: cgroupfs
cgroupRoot: @CGROUP@
cgroupsPerQOS: true
enforceNodeAllocatable: [pods]
oomScoreAdj: 0
makeIPTablesUtilChains: false
evictionHard:
  memory.available: "0%"
  nodefs.available: "0%"
  nodefs.inodesFree: "0%"
  imagefs.available: "0%"
  imagefs.inodesFree: "0%"
imageGCHighThresholdPercent: 100
serializeImagePulls: false
nodeStatusUpdateFrequency: 5s
syncFrequency: 10s
kubeAPIQPS: 200
kubeAPIBurst: 400
`

// proxyConfig: nftables, because it needs no tools and no kernel modules that namespaces lack.
// The conntrack zeros mean "leave the sysctls alone": a network namespace may not write them.
const proxyConfig = `apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
clusterCIDR: @PODS@
bindAddress: @IP@
healthzBindAddress: 127.0.0.1:10256
metricsBindAddress: 127.0.0.1:10249
clientConnection: {kubeconfig: @PROXY@}
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
oomScoreAdj: 0
nftables: {syncPeriod: 30s, minSyncPeriod: 100ms}
`

// startNode writes the two configuration files and starts what makes a node, with the cluster's DNS on it.
func startNode(o *options, s *supervisor) error {
	fill := strings.NewReplacer(
		"@CONTAINERD@", containerdSocket, "@RESOLV@", resolvConf, "@DIR@", o.dir, "@IP@", o.nodeIP,
		"@CGROUP@", "/"+strings.TrimPrefix(o.nodeCgroup, "/"), "@DOMAIN@", clusterDomain, "@PODS@", podCIDR,
		"@PROXY@", o.kubeconfig(proxyName),
	)
	for name, text := range map[string]string{"kubelet.yaml": kubeletConfig, "kube-proxy.yaml": proxyConfig} {
		if err := os.WriteFile(o.path(name), []byte(fill.Replace(text)), 0o600); err != nil {
			return err
		}
	}
	scheduler := o.kubeconfig(schedulerName)
	components := []struct {
		name string
		args []string
	}{
		{schedulerName, []string{
			"--kubeconfig=" + scheduler, "--authentication-kubeconfig=" + scheduler, "--authorization-kubeconfig=" + scheduler,
			"--bind-address=127.0.0.1", "--cert-dir=" + o.pki(""), "--leader-elect=false", "--profiling=false",
		}},
		{kubeletName, []string{
			"--config=" + o.path("kubelet.yaml"), "--kubeconfig=" + o.kubeconfig(kubeletName), "--root-dir=" + o.path("kubelet"),
			"--cert-dir=" + o.pki(""), "--hostname-override=" + o.nodeName, "--node-ip=" + o.nodeIP,
		}},
		{proxyName, []string{"--config=" + o.path("kube-proxy.yaml"), "--hostname-override=" + o.nodeName}},
		{dnsName, []string{"--kubeconfig=" + o.kubeconfig(dnsName), "--listen=" + o.nodeIP + ":53"}},
	}
	for _, component := range components {
		if err := s.start(component.name, component.args); err != nil {
			return err
		}
	}
	return nil
}

func waitForNode(o *options, s *supervisor, client kubernetes.Interface) error {
	return s.poll("the node", readyTimeout, pollEvery, func(ctx context.Context) error {
		node, err := client.CoreV1().Nodes().Get(ctx, o.nodeName, metav1.GetOptions{})
		if err != nil {
			return err
		}
		for _, condition := range node.Status.Conditions {
			if condition.Type != corev1.NodeReady {
				continue
			}
			if condition.Status == corev1.ConditionTrue {
				return nil
			}
			return fmt.Errorf("not ready: %s", condition.Message)
		}
		return fmt.Errorf("node %s has no Ready condition yet", o.nodeName)
	})
}
