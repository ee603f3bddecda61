// prepare: the gate that scans and transforms pass. In a file of its own, without includes: Nextflow 25.04.0 with the v2 parser runs a
// file once for each that includes it, and then finds what that includes twice.

// Fails for a scan beyond a quality limit; only scans that it lets through go on.
process QUALITY {
    tag "${id}"
    label 'cpu_small'
    label 'one_scan'

    input:
    tuple val(id), path(figures, stageAs: 'figures/*')
    path limits, stageAs: 'limits/*'
    val code

    output:
    val id, emit: id

    script:
    def limits_option = limits ? "--limits ${limits}" : ''
    """
    lesionforge --threads ${task.cpus} ${task.ext.common} prepare judge --figures ${figures} ${limits_option}
    """

    stub:
    """
    lesionforge prepare judge --help > /dev/null
    """
}
