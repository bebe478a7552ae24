// Command controlplane is a real Kubernetes for tests and for the demo, as one
// binary: etcd, kube-apiserver and kube-controller-manager on loopback, and with
// --node also kube-scheduler, kubelet, kube-proxy and a cluster DNS (the node bed,
// which has to run inside the namespaces that testenv/node prepares).
//
//	controlplane up --dir DIR [flags]      bring everything up, stay in the foreground
//	controlplane COMPONENT FLAGS           one upstream component; `up` runs itself with these
//
// The components are child processes and not goroutines: each upstream command
// installs a process-wide signal handler, and installing a second one panics.
package main

import (
	"context"
	"fmt"
	"os"
	_ "time/tzdata" // the binary also runs where no zone files are installed

	"github.com/spf13/cobra"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"
)

const usage = `usage: controlplane up --dir DIR [flags]      (controlplane up --help)
       controlplane kube-apiserver|kube-controller-manager|kube-scheduler|kubelet|kube-proxy FLAGS
       controlplane dns --kubeconfig FILE --listen ADDR:53`

// Names of the sub-commands that `up` starts as children.
const (
	apiServerName         = "kube-apiserver"
	controllerManagerName = "kube-controller-manager"
	schedulerName         = "kube-scheduler"
	kubeletName           = "kubelet"
	proxyName             = "kube-proxy"
	dnsName               = "dns"
)

func main() {
	if len(os.Args) < 2 {
		fail(fmt.Errorf("no command given\n%s", usage))
	}
	args := os.Args[2:]
	switch os.Args[1] {
	case "up":
		fail(up(args))
	case dnsName:
		fail(serveDNS(args))
	case apiServerName:
		runUpstream(apiserver.NewAPIServerCommand(), args)
	case controllerManagerName:
		runUpstream(controllermanager.NewControllerManagerCommand(), args)
	case schedulerName:
		runUpstream(scheduler.NewSchedulerCommand(), args)
	case kubeletName:
		runUpstream(kubelet.NewKubeletCommand(context.Background()), args)
	case proxyName:
		runUpstream(proxy.NewProxyCommand(), args)
	default:
		fail(fmt.Errorf("unknown command %q\n%s", os.Args[1], usage))
	}
}

func runUpstream(command *cobra.Command, args []string) {
	command.SetArgs(args)
	os.Exit(cli.Run(command))
}

// fail ends the process with status 1 if there is an error; one line says why.
func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "controlplane:", err)
		os.Exit(1)
	}
}
