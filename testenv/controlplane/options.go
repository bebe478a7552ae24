package main

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
)

// Addresses inside the cluster. Nothing routes them outside of it.
const (
	serviceCIDR      = "10.0.0.0/24"
	firstServiceIP   = "10.0.0.1" // always the `kubernetes` Service
	podCIDR          = "10.244.0.0/24"
	lightControllers = "garbage-collector-controller,namespace-controller,serviceaccount-controller," +
		"root-ca-certificate-publisher-controller,clusterrole-aggregation-controller"
	allControllers = "*"
)

// options is what `up` was asked for, checked and with every default filled in.
type options struct {
	dir             string
	dirIsOurs       bool // a temporary one: removed at the end
	port            int
	controllers     string
	holdControllers bool
	resume          bool
	parentPID       int
	fsync           bool
	audit           bool
	nodeName        string // empty: the light bed, without a node
	nodeIP          string
	nodeCgroup      string
	apiServerArgs   []string
}

func parseOptions(args []string) (*options, error) {
	var o options
	flags := flag.NewFlagSet("up", flag.ExitOnError)
	flags.StringVar(&o.dir, "dir", "", "state `DIR`; what an earlier run left in it is wiped (default: a fresh temporary directory)")
	flags.BoolVar(&o.resume, "resume", false, "with --dir and --api-port: go on with what an earlier run left in DIR (etcd's data, certificates, audit.log)")
	flags.IntVar(&o.port, "api-port", 0, "`PORT` of the API server (default: a free one)")
	flags.StringVar(&o.controllers, "controllers", "", "controllers to run (default: the five that tests need; with --node all)")
	flags.BoolVar(&o.holdControllers, "hold-controllers", false, "write DIR/api-ready, then start the controllers only when DIR/go appears: kinds installed in between are garbage-collected at once")
	flags.IntVar(&o.parentPID, "parent-pid", 0, "end when the process `N` is gone")
	flags.BoolVar(&o.fsync, "fsync", false, "make etcd's writes durable (for benchmarks; tests throw the data away)")
	flags.BoolVar(&o.audit, "audit", true, "write DIR/audit.log, one line for each request of interest; off by default with --node")
	node := flags.String("node", "", "`NAME=ADDRESS`: also run scheduler, kubelet, kube-proxy and DNS for this one node")
	flags.StringVar(&o.nodeCgroup, "node-cgroup", "", "with --node: the `CGROUP`, the same in every hierarchy, below which pods are placed")
	apiServerArgs := flags.String("apiserver-args", "", "more flags for kube-apiserver, separated by spaces")
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	if flags.NArg() > 0 {
		return nil, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	o.apiServerArgs = strings.Fields(*apiServerArgs)
	if o.resume && (o.dir == "" || o.port == 0) {
		return nil, errors.New("--resume needs --dir and --api-port of the earlier run")
	}

	given := map[string]bool{}
	flags.Visit(func(f *flag.Flag) { given[f.Name] = true })
	if given["node"] {
		if err := o.setNode(*node); err != nil {
			return nil, err
		}
		o.audit = o.audit && given["audit"]
	}
	if o.controllers == "" {
		o.controllers = lightControllers
		if o.nodeName != "" {
			o.controllers = allControllers
		}
	}
	if err := o.setDir(); err != nil {
		return nil, err
	}
	var err error
	if o.port == 0 {
		o.port, err = freePort(o.address())
	}
	return &o, err
}

func (o *options) setNode(value string) error {
	name, address, found := strings.Cut(value, "=")
	if !found || name == "" || net.ParseIP(address).To4() == nil {
		return fmt.Errorf("--node %q: want NAME=IPV4-ADDRESS", value)
	}
	if o.nodeCgroup == "" {
		return errors.New("--node needs --node-cgroup")
	}
	o.nodeName, o.nodeIP = name, address
	return nil
}

func (o *options) setDir() (err error) {
	if o.dir == "" {
		o.dirIsOurs = true
		o.dir, err = os.MkdirTemp("", "controlplane-")
		return err
	}
	if o.dir, err = filepath.Abs(o.dir); err != nil {
		return err
	}
	// A unix socket's path has a hard limit of 107 bytes, and etcd's own error does not say so.
	if socket := o.path(etcdSocket); len(socket) > 107 {
		return fmt.Errorf("--dir is too long: %s has more than 107 bytes", socket)
	}
	return os.MkdirAll(o.dir, 0o700)
}

// address is where the API server listens: loopback, or, so that pods reach it, the node's address.
func (o *options) address() string {
	if o.nodeName != "" {
		return o.nodeIP
	}
	return "127.0.0.1"
}

func (o *options) server() string                { return fmt.Sprintf("https://%s:%d", o.address(), o.port) }
func (o *options) path(name string) string       { return filepath.Join(o.dir, name) }
func (o *options) pki(name string) string        { return filepath.Join(o.dir, "pki", name) }
func (o *options) kubeconfig(user string) string { return o.path(user + ".kubeconfig") }

// freePort looks below the range from which the kernel serves outgoing connections and port 0:
// between this look and the API server's own bind nothing is given the port by chance.
func freePort(address string) (int, error) {
	var last error
	for range 100 {
		port := 20000 + rand.IntN(12000)
		listener, err := net.Listen("tcp", net.JoinHostPort(address, fmt.Sprint(port)))
		if err == nil {
			return port, listener.Close()
		}
		last = err
	}
	return 0, fmt.Errorf("no free port on %s: %w", address, last)
}
