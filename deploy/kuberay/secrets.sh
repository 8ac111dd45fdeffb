#!/bin/sh
# Makes the two secrets that the manifests name, in the namespace distbp. Run it once:
#
#   sh deploy/kuberay/secrets.sh 'postgresql://distbp:PASSWORD@postgres.example.com/distbp'
#
# The token of the Ray cluster is drawn here, and is nowhere but in the cluster. `distbp-database` holds the URL.
set -eu
url=${1:?give the URL of a PostgreSQL database}
namespace=${NAMESPACE:-distbp}
token=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')

# Through a pipe: what stands in an argument can be seen in the list of processes.
secret() {
    printf '%s' "$3" | kubectl create secret generic "$1" --namespace "$namespace" --from-file="$2=/dev/stdin"
}
secret distbp-ray auth_token "$token"
secret distbp-database url "$url"
