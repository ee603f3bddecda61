from lesionforge.cli import main

main()
